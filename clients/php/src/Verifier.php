<?php

declare(strict_types=1);

namespace WebhookGateway;

/**
 * Tells whether a webhook comes from the gateway: Standard Webhooks, HMAC-SHA-256.
 *
 *     $ours = $verifier->verify(
 *         file_get_contents('php://input'),
 *         $_SERVER['HTTP_WEBHOOK_ID'] ?? null,
 *         $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? null,
 *         $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? null,
 *     );
 */
final class Verifier
{
    /** @var list<string> */
    private readonly array $keys;

    /**
     * Several secrets while one is changed. `$tolerance`: how many seconds the timestamp may be off.
     *
     * @param string|list<string> $secrets whsec_…
     * @throws \InvalidArgumentException one is not a secret, or there is none
     */
    public function __construct(#[\SensitiveParameter] string|array $secrets, private readonly int $tolerance = 300)
    {
        $this->keys = array_map(self::key(...), array_values((array) $secrets));
        if ($this->keys === []) {
            throw new \InvalidArgumentException('A secret is needed: without one, nothing can be verified.');
        }
    }

    /** `$body`: the raw bytes, never JSON that was read and written again. `$now`: Unix seconds, for tests. */
    public function verify(string $body, ?string $id, ?string $timestamp, ?string $signature, ?int $now = null): bool
    {
        if ($id === null || $timestamp === null || $signature === null || preg_match('/^\d{1,12}$/D', $timestamp) !== 1) {
            return false;
        }
        if (abs(($now ?? time()) - (int) $timestamp) > $this->tolerance) {
            return false;
        }
        $fits = false;
        foreach ($this->keys as $key) {
            $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
            foreach (explode(' ', $signature) as $offered) {
                $fits = hash_equals($expected, $offered) || $fits;
            }
        }

        return $fits;
    }

    /** Whether it was sent to try the endpoint: nothing has happened. `$body` as verified; the header is not signed. */
    public static function isTest(string $body): bool
    {
        $event = json_decode($body, true);

        return is_array($event) && ($event['test'] ?? false) === true;
    }

    private static function key(#[\SensitiveParameter] string $secret): string
    {
        $key = base64_decode(substr($secret, strlen('whsec_')), true);
        if (!str_starts_with($secret, 'whsec_') || $key === false || strlen($key) < 24) {
            throw new \InvalidArgumentException('A secret is whsec_ and base64 of at least 24 bytes.');
        }

        return $key;
    }
}
