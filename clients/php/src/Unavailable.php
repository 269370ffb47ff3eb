<?php

declare(strict_types=1);

namespace WebhookGateway;

/** Whether the event was accepted is unknown: post the same bytes again. `$retryAfter`: seconds, where it asked. */
final class Unavailable extends \RuntimeException
{
    public function __construct(string $reason, public readonly ?int $retryAfter = null)
    {
        parent::__construct("The gateway is unavailable: $reason.");
    }
}
