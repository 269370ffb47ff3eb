<?php

declare(strict_types=1);

namespace WebhookGateway\Tests;

use PHPUnit\Framework\TestCase;
use WebhookGateway\Verifier;

final class VerifierTest extends TestCase
{
    /** The specification's own example. */
    private const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
    private const ID = 'msg_p5jXN8AQM9LWM0D4loKWxJek';
    private const NOW = 1614265330;
    private const BODY = '{"test": 2432232314}';
    private const SIGNATURE = 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=';
    private const OTHER = 'whsec_b3RoZXIgc2VjcmV0IG9mIHNvbWVib2R5IGVsc2U=';

    public function test_the_example_of_the_specification_is_verified(): void
    {
        self::assertTrue($this->verify());
    }

    public function test_what_was_sent_to_try_an_endpoint_says_so(): void
    {
        self::assertTrue(Verifier::isTest('{"id":"evt_1","type":"a.b","test":true,"data":{}}'));
        foreach ([self::BODY, '{"id":"evt_1","data":{"test":true}}', '{"test":"true"}', '[true]', 'test', ''] as $body) {
            self::assertFalse(Verifier::isTest($body));
        }
    }

    public function test_what_was_changed_is_not(): void
    {
        self::assertFalse($this->verify(body: self::BODY . ' '));
        self::assertFalse($this->verify(id: 'msg_2'));
        self::assertFalse($this->verify(timestamp: (string) (self::NOW + 1)));
        self::assertFalse($this->verify(secrets: self::OTHER));
    }

    public function test_five_minutes_off_is_accepted_and_a_second_more_is_not(): void
    {
        foreach ([-301 => false, -300 => true, 300 => true, 301 => false] as $off => $accepted) {
            self::assertSame($accepted, $this->verify(now: self::NOW + $off));
        }
    }

    public function test_while_a_secret_is_changed_one_signature_that_fits_is_enough(): void
    {
        $other = base64_encode(random_bytes(32));
        self::assertTrue($this->verify(signature: "v1,$other " . self::SIGNATURE));
        self::assertTrue($this->verify(signature: self::SIGNATURE . " v1a,$other"));
        self::assertFalse($this->verify(signature: "v1,$other v1,$other"));
        self::assertTrue($this->verify(secrets: [self::OTHER, self::SECRET]));
        self::assertTrue($this->verify(secrets: [self::SECRET, self::OTHER]));
    }

    /** @dataProvider nonsense */
    public function test_what_is_missing_or_not_well_formed_is_refused(?string $id, ?string $timestamp, ?string $signature): void
    {
        self::assertFalse((new Verifier(self::SECRET))->verify(self::BODY, $id, $timestamp, $signature, self::NOW));
    }

    /** @return list<array{?string, ?string, ?string}> */
    public static function nonsense(): array
    {
        $now = (string) self::NOW;

        return [
            [null, $now, self::SIGNATURE], [self::ID, null, self::SIGNATURE], [self::ID, $now, null],
            [self::ID, "$now\n", self::SIGNATURE], [self::ID, "+$now", self::SIGNATURE], [self::ID, '', self::SIGNATURE],
            [self::ID, str_repeat('9', 40), self::SIGNATURE], [self::ID, $now, ''], [self::ID, $now, 'v1'],
            [self::ID, $now, substr(self::SIGNATURE, 3)], [self::ID, $now, 'v1a,' . substr(self::SIGNATURE, 3)],
        ];
    }

    /** @dataProvider mistakes */
    public function test_what_is_no_secret_verifies_nothing_and_is_not_quoted(string|array $secrets): void
    {
        $this->expectException(\InvalidArgumentException::class);
        $this->expectExceptionMessageMatches('/^A secret is (needed|whsec_ and)/');
        new Verifier($secrets);
    }

    /** @return list<array{string|list<string>}> */
    public static function mistakes(): array
    {
        return [[''], [[]], ['whsec_'], ['whsec_AAAA'], ['whsec_ééé'], [substr(self::SECRET, 6)], [[self::SECRET, '']]];
    }

    private function verify(
        string $body = self::BODY,
        string $id = self::ID,
        string $timestamp = self::NOW . '',
        string $signature = self::SIGNATURE,
        int $now = self::NOW,
        string|array $secrets = self::SECRET,
    ): bool {
        return (new Verifier($secrets))->verify($body, $id, $timestamp, $signature, $now);
    }
}
