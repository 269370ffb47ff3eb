<?php

declare(strict_types=1);

namespace WebhookGateway\Tests;

use PHPUnit\Framework\TestCase;
use WebhookGateway\Gateway;
use WebhookGateway\Refused;
use WebhookGateway\Unavailable;

final class GatewayTest extends TestCase
{
    /** @var resource */
    private static $server;
    private static string $url;

    public static function setUpBeforeClass(): void
    {
        $said = [1 => ['file', '/dev/null', 'w'], 2 => ['pipe', 'w']];
        self::$server = proc_open([PHP_BINARY, '-S', '127.0.0.1:0', __DIR__ . '/answers.php'], $said, $pipes);
        do {
            $line = fgets($pipes[2]);
        } while ($line !== false && preg_match('~\((http://[\d.:]+)\) started~', $line, $found) !== 1);
        self::$url = $found[1];
        stream_set_blocking($pipes[2], false);
    }

    public static function tearDownAfterClass(): void
    {
        proc_terminate(self::$server);
        proc_close(self::$server);
    }

    public function test_it_posts_the_very_bytes_that_were_encoded_with_the_key_and_says_what_became_of_them(): void
    {
        $bytes = Gateway::encode('seen', ['name' => 'Müller/Söhne', 'value' => 4.0], 'k-1');
        $accepted = $this->gateway()->post($bytes);
        $seen = ['POST', '/v1/events', 'Bearer whk_1', 'application/json', hash('sha256', $bytes)];
        self::assertSame($seen, explode('|', $accepted->id));
        self::assertFalse($accepted->duplicate);
    }

    public function test_a_large_event_goes_in_one_go(): void
    {
        $bytes = Gateway::encode('seen', ['text' => str_repeat('x', 1_000_000)], 'k-1');
        self::assertTrue($this->gateway()->post($bytes)->duplicate);
    }

    public function test_an_event_is_encoded_as_it_is_and_the_same_each_time(): void
    {
        $data = ['amount' => ['value' => '85.00'], 'path' => 'a/b', 'weight' => 4.0, 'umlaut' => 'ä', 'tags' => []];
        $when = new \DateTimeImmutable('2026-11-24T09:30:00.25+02:00');
        $bytes = Gateway::encode('a.b', $data, 'row-1', subject: 'patient:1', orderingKey: 'x:1', timestamp: $when);
        self::assertSame(
            '{"type":"a.b","idempotency_key":"row-1","timestamp":"2026-11-24T09:30:00.250000+02:00",'
            . '"subject":"patient:1","ordering_key":"x:1",'
            . '"data":{"amount":{"value":"85.00"},"path":"a/b","weight":4.0,"umlaut":"ä","tags":[]}}',
            $bytes,
        );
        self::assertSame('{"type":"a.b","idempotency_key":"row-1","data":{}}', Gateway::encode('a.b', [], 'row-1'));
        self::assertSame(
            '{"type":"a.b","idempotency_key":"row-1","to":["payer_17"],"patient":"pat_1","data":{}}',
            Gateway::encode('a.b', [], 'row-1', to: ['payer_17'], patient: 'pat_1'),
        );
    }

    public function test_addressees_that_were_not_found_are_not_everybody(): void
    {
        $this->expectException(\TypeError::class);
        Gateway::encode('a.b', [], 'row-1', to: null);
    }

    public function test_what_json_can_not_hold_is_said_when_it_is_encoded(): void
    {
        $this->expectException(\JsonException::class);
        Gateway::encode('a.b', ['name' => "M\xfcller"], 'row-1');
    }

    public function test_a_refusal_says_where_and_why_and_what_to_do(): void
    {
        try {
            $this->gateway()->post(Gateway::encode('invalid', [], 'k'));
            self::fail();
        } catch (Refused $refused) {
            self::assertSame(422, $refused->status);
            self::assertSame(
                '422 The request breaks the rules; Correct what `errors` lists.; '
                . '/data/version (type): Give an integer.; x (unknown): Leave it out.',
                $refused->getMessage(),
            );
            self::assertSame('/data/version', $refused->problem['errors'][0]['pointer']);
        }
    }

    public function test_what_something_else_than_the_gateway_says_is_not_repeated(): void
    {
        foreach (['proxy' => '413', 'nonsense' => '422; / (): ; / (r): '] as $type => $message) {
            try {
                $this->gateway()->post(Gateway::encode($type, [], 'k', subject: 'patient:1'));
                self::fail();
            } catch (Refused $refused) {
                self::assertSame($message, $refused->getMessage());
            }
        }
    }

    /** @dataProvider later */
    public function test_what_may_pass_by_itself_is_no_refusal(string $type, string $after, ?int $seconds): void
    {
        try {
            $this->gateway()->post(Gateway::encode($type, [], 'k', subject: $after));
            self::fail();
        } catch (Unavailable $unavailable) {
            self::assertSame($seconds, $unavailable->retryAfter);
        }
    }

    /** @return list<array{string, string, ?int}> */
    public static function later(): array
    {
        return [
            ['503', '2', 2], ['429', '30', 30], ['500', ' ', null], ['502', ' ', null], ['408', ' ', null],
            ['425', ' ', null], ['409', '10', 10], ['503', 'Wed, 25 Nov 2026 08:00:00 GMT', null], ['503', '99999999999', 86_400],
            ['elsewhere', ' ', null], ['moved', ' ', null], ['204', ' ', null],
        ];
    }

    public function test_nobody_there_and_no_answer_in_time_mean_later(): void
    {
        $silent = stream_socket_server('tcp://127.0.0.1:0');
        $port = explode(':', stream_socket_get_name($silent, false))[1];
        try {
            (new Gateway("http://127.0.0.1:$port", 'whk_1', timeout: 0.2))->post('{}');
            self::fail();
        } catch (Unavailable $unavailable) {
            self::assertStringContainsString('Timeout', $unavailable->getMessage());
        }
        fclose($silent);
        $this->expectException(Unavailable::class);
        (new Gateway("http://127.0.0.1:$port", 'whk_1'))->post('{}');
    }

    /** @dataProvider mistakes */
    public function test_a_url_or_key_that_can_not_be_one_is_said_at_once_and_the_key_not_shown(string $url, string $key): void
    {
        $this->expectException(\InvalidArgumentException::class);
        $this->expectExceptionMessageMatches('/^(?!.*secret)/');
        new Gateway($url, $key);
    }

    /** @return list<array{string, string}> */
    public static function mistakes(): array
    {
        return [['', 'k'], ['gateway.example', 'k'], ['file:///etc/passwd', 'k'], ['https://g', ''],
            ['https://g', "secret\r\nX: y"], ['https://g', 'secret key'], ['https://g', "secret\n"]];
    }

    private function gateway(): Gateway
    {
        return new Gateway(self::$url . '/', 'whk_1');
    }
}
