<?php

declare(strict_types=1);

namespace WebhookGateway;

/** The event is on the gateway's disk and will not be lost. `$duplicate`: it was there before. */
final class Accepted
{
    public function __construct(public readonly string $id, public readonly bool $duplicate)
    {
    }
}
