<?php

declare(strict_types=1);

namespace WebhookGateway;

/**
 * The gateway said no (RFC 9457). The message tells why, where, and what to do about it; it holds nothing of the event,
 * so it may go into a log. `$status` is 401 where the key is at fault and not the event.
 */
final class Refused extends \RuntimeException
{
    /** @param array<string, mixed> $problem as answered; empty if it was not the gateway that answered */
    public function __construct(public readonly int $status, public readonly array $problem)
    {
        $reasons = [trim("$status " . self::text($problem, 'title')), self::text($problem, 'detail')];
        foreach (is_array($problem['errors'] ?? null) ? $problem['errors'] : [] as $error) {
            if (is_array($error)) {
                $place = self::text($error, 'pointer') ?: self::text($error, 'parameter') ?: '/';
                $reasons[] = "$place (" . self::text($error, 'rule') . '): ' . self::text($error, 'remedy');
            }
        }
        parent::__construct(implode('; ', array_filter($reasons)));
    }

    /** @param array<mixed> $from */
    private static function text(array $from, string $member): string
    {
        return is_string($from[$member] ?? null) ? $from[$member] : '';
    }
}
