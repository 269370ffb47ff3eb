<?php

/**
 * Receives webhooks with PHP alone: verifies each, keeps it once, answers. Your work then reads the inbox.
 *
 * Serve it with PHP-FPM. To try it: WEBHOOK_SECRET=whsec_… INBOX=inbox.db php -S 127.0.0.1:9000 receiver.php
 */

declare(strict_types=1);

function verify(string $secret, string $id, string $timestamp, string $offered, string $body, int $now): bool
{
    if (preg_match('/^\d{1,12}$/D', $timestamp) !== 1 || abs($now - (int) $timestamp) > 300) {
        return false;
    }
    $key = base64_decode(substr($secret, strlen('whsec_')), true);
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    $fits = false;
    foreach (explode(' ', $offered) as $signature) { // several, while a secret is changed
        $fits = hash_equals($expected, $signature) || $fits;
    }

    return $fits;
}

/** False if it was there before. */
function keep(string $id, string $body): bool
{
    $store = new PDO('sqlite:' . (getenv('INBOX') ?: 'inbox.db'));
    $store->exec('CREATE TABLE IF NOT EXISTS inbox (webhook_id TEXT PRIMARY KEY, body BLOB)');
    $insert = $store->prepare('INSERT INTO inbox VALUES (?, ?) ON CONFLICT DO NOTHING'); // MySQL: INSERT IGNORE
    $insert->execute([$id, $body]);

    return $insert->rowCount() === 1;
}

function receive(string $secret): void
{
    $body = file_get_contents('php://input');
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    $verified = verify($secret, $id, $timestamp, $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '', $body, time());
    $test = $verified && (json_decode($body, true)['test'] ?? false) === true; // nothing has happened
    $new = $verified && !$test && keep($id, $body);
    http_response_code($verified ? 204 : 401); // a duplicate is a success, too
    $said = $test ? 'test ' : ($new ? 'accepted ' : 'duplicate ');
    file_put_contents('php://stdout', ($verified ? $said . $id : 'refused') . "\n");
}

receive(getenv('WEBHOOK_SECRET') ?: throw new RuntimeException('set WEBHOOK_SECRET to the secret of your endpoint'));
