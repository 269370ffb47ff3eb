<?php

/**
 * From plain PHP: what happened and the event that tells of it are written in one transaction, and posted from there.
 *
 *     DATABASE=sqlite:hms.db php post_event.php schedule apt_1     # what your application does in a request
 *     GATEWAY_URL=… GATEWAY_API_KEY=whk_… php post_event.php post  # what cron does every minute, under flock: one at a time
 */

declare(strict_types=1);

use WebhookGateway\Gateway;
use WebhookGateway\Refused;
use WebhookGateway\Unavailable;

require __DIR__ . '/../clients/php/autoload.php';

// In MySQL: LONGTEXT, not JSON, which would write the bytes anew.
const TABLES = <<<'SQL'
    CREATE TABLE IF NOT EXISTS appointments (id TEXT PRIMARY KEY, patient_id TEXT, starts_at TEXT);
    CREATE TABLE IF NOT EXISTS outbox (place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, event TEXT, refused TEXT);
    SQL;

function schedule(PDO $db, string $appointment): void
{
    $data = ['appointment_id' => $appointment, 'patient_id' => 'pat_1', 'practitioner_id' => 'prac_1',
        'starts_at' => '2026-11-24T09:30:00+02:00', 'location_id' => 'loc_1', 'status' => 'booked', 'version' => 1];
    $id = bin2hex(random_bytes(16));
    $event = Gateway::encode('appointment.scheduled', $data, $id, timestamp: new DateTimeImmutable());
    $db->beginTransaction(); // either both are there or neither
    $db->prepare('INSERT INTO appointments VALUES (?, ?, ?)')->execute([$appointment, 'pat_1', $data['starts_at']]);
    $db->prepare('INSERT INTO outbox (id, event) VALUES (?, ?)')->execute([$id, $event]);
    $db->commit();
}

/** Oldest first, one after the other: that is what keeps the order. A row leaves when the gateway has it. */
function post(PDO $db, Gateway $gateway): int
{
    $waiting = $db->query('SELECT id, event FROM outbox WHERE refused IS NULL ORDER BY place')->fetchAll();
    foreach ($waiting as ['id' => $id, 'event' => $event]) {
        try {
            $gateway->post($event);
            $db->prepare('DELETE FROM outbox WHERE id = ?')->execute([$id]);
        } catch (Unavailable $later) {
            fwrite(STDERR, "{$later->getMessage()}\n");

            return 75; // nothing is lost: the next run posts the same bytes
        } catch (Refused $refused) {
            fwrite(STDERR, "event $id: {$refused->getMessage()}\n"); // holds nothing about the patient
            if ($refused->status === 401) {
                return 77; // the key is at fault, and not the event
            }
            $db->prepare('UPDATE outbox SET refused = ? WHERE id = ?')->execute([$refused->getMessage(), $id]);
        }
    }

    return 0;
}

$db = new PDO(getenv('DATABASE') ?: 'sqlite:hms.db', null, null, [PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
$db->exec(TABLES);
exit(match ($argv[1] ?? '') {
    'schedule' => (int) schedule($db, $argv[2]),
    'post' => post($db, new Gateway((string) getenv('GATEWAY_URL'), (string) getenv('GATEWAY_API_KEY'))),
});
