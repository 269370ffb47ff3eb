<?php

declare(strict_types=1);

namespace WebhookGateway;

/**
 * Posts events to the gateway.
 *
 *     $bytes = Gateway::encode('lab_order.placed', $order, idempotencyKey: $row->id);  // keep these
 *     $accepted = (new Gateway($url, $key))->post($bytes);                              // and post them until accepted
 *
 * One call is one request. Trying again is your queue's or cron's part, with the same bytes: the gateway takes an
 * event once, however often it is posted, and refuses another one under the same key.
 *
 *     RuntimeException
 *     ├── Unavailable   no answer, or "later" (408, 425, 429, 5xx): post the same bytes again
 *     └── Refused       no (any other 4xx), with reasons: posting again does not help
 */
final class Gateway
{
    private const AGAIN = [408, 425, 429];
    private const FLAGS = JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE
        | JSON_PRESERVE_ZERO_FRACTION;

    private readonly string $url;
    private ?\CurlHandle $connection = null;

    /**
     * `$timeout` bounds one request in seconds, connecting included. The gateway itself answers within about five.
     *
     * @throws \InvalidArgumentException the URL or the key can't be one
     */
    public function __construct(
        string $url,
        #[\SensitiveParameter] private readonly string $key,
        private readonly float $timeout = 10.0,
    ) {
        if (preg_match('~^https?://[^/]~i', $url) !== 1) {
            throw new \InvalidArgumentException("The gateway's URL must begin with https:// or http://.");
        }
        if (preg_match('/^[!-\~]+$/D', $key) !== 1) {
            throw new \InvalidArgumentException('An API key is text like whk_…: this one is empty, or something else.');
        }
        $this->url = rtrim($url, '/') . '/v1/events';
    }

    /**
     * The event as bytes, ready to be kept and posted. `$timestamp` is when it happened, `$to` the only subscribers
     * that get it; null is refused, so that a name that was not found is not everybody.
     *
     * @param list<string>|false $to ids or external ids
     * @param array<string, mixed>|\JsonSerializable|\stdClass $data an object by the schema of the type
     * @throws \JsonException `$data` holds what JSON can't: text that is not UTF-8, a resource, NAN
     */
    public static function encode(
        string $type,
        array|\JsonSerializable|\stdClass $data,
        string $idempotencyKey,
        ?string $subject = null,
        ?string $orderingKey = null,
        ?\DateTimeInterface $timestamp = null,
        array|false $to = false,
        ?string $patient = null,
    ): string {
        $event = [
            'type' => $type,
            'idempotency_key' => $idempotencyKey,
            'timestamp' => $timestamp?->format('Y-m-d\TH:i:s.uP'),
            'subject' => $subject,
            'ordering_key' => $orderingKey,
            'to' => $to === false ? null : $to,
            'patient' => $patient,
            'data' => $data === [] ? new \stdClass() : $data,
        ];

        return json_encode(array_filter($event, static fn ($value) => $value !== null), self::FLAGS);
    }

    /**
     * Posts what `encode` made, and returns when the gateway has it on disk.
     *
     * @throws Refused
     * @throws Unavailable
     */
    public function post(string $bytes): Accepted
    {
        [$status, $headers, $body] = $this->request($bytes);
        $answer = json_decode($body, true);
        if ($status === 202 && is_string($answer['id'] ?? null)) {
            return new Accepted($answer['id'], (bool) ($answer['duplicate'] ?? false));
        }
        $after = $headers['retry-after'] ?? '';
        if ($status >= 400 && $status < 500 && !in_array($status, self::AGAIN, true) && $after === '') {
            // Whoever stands in between (a proxy, say) may repeat anything: only a problem is known to hold no values.
            $problem = str_starts_with($headers['content-type'] ?? '', 'application/problem+json') ? $answer : null;
            throw new Refused($status, is_array($problem) ? $problem : []);
        }
        throw new Unavailable("it answered $status", ctype_digit($after) ? min((int) $after, 86_400) : null);
    }

    /** @return array{int, array<string, string>, string} status, headers by lower-case name, body */
    private function request(string $bytes): array
    {
        $headers = [];
        $this->connection ??= curl_init();
        curl_setopt_array($this->connection, [
            CURLOPT_URL => $this->url,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            CURLOPT_POSTFIELDS => $bytes,
            CURLOPT_HTTPHEADER => [
                "Authorization: Bearer {$this->key}",
                'Content-Type: application/json',
                'Accept: application/json',
                'Expect:', // no waiting for "100 Continue" before a large body
            ],
            CURLOPT_CONNECTTIMEOUT_MS => (int) (min($this->timeout, 5.0) * 1000),
            CURLOPT_TIMEOUT_MS => (int) ($this->timeout * 1000),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_HEADERFUNCTION => static function ($_, string $line) use (&$headers): int {
                [$name, $value] = explode(':', $line, 2) + [1 => ''];
                $headers[strtolower($name)] = trim($value);

                return strlen($line);
            },
        ]);
        $body = curl_exec($this->connection);
        if (!is_string($body)) {
            throw new Unavailable(curl_strerror(curl_errno($this->connection)) ?? 'no answer');
        }

        return [curl_getinfo($this->connection, CURLINFO_RESPONSE_CODE), $headers, $body];
    }
}
