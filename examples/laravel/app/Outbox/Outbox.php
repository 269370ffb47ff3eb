<?php

declare(strict_types=1);

namespace App\Outbox;

use Illuminate\Support\Collection;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Str;
use WebhookGateway\Gateway;

/** Events that the gateway does not have yet. Each is written in the transaction of what it tells of. */
final class Outbox
{
    /**
     * The event is in the database if, and only if, what it tells of is. `$orderingKey`: left out, the type's own.
     *
     * Write what the event tells of first: its locked row is what brings the events of one thing into their order.
     *
     * @param array<string, mixed> $data an object by the schema of the type
     * @param list<string>|false $to the only subscribers that get it, by id or external id; left out, whoever may
     * @throws \LogicException no transaction is open
     * @throws \JsonException
     */
    public function write(
        string $type,
        array $data,
        ?string $subject = null,
        ?string $orderingKey = null,
        array|false $to = false,
    ): void {
        if (DB::transactionLevel() === 0) {
            throw new \LogicException('Write an event in the transaction of what it tells of: DB::transaction(…).');
        }
        $id = (string) Str::uuid();
        $event = Gateway::encode($type, $data, $id, $subject, $orderingKey, now(), $to);
        DB::table('outbox')->insert(['id' => $id, 'type' => $type, 'event' => $event]);
        DB::afterCommit(static function (): void {
            // A queue that is down is reported and no more: the appointment stands, and the schedule posts its event.
            rescue(static function (): void {
                PostOutbox::dispatch();
            });
        });
    }

    /** The oldest first. */
    public function waiting(): Collection
    {
        return DB::table('outbox')->whereNull('refused')->orderBy('place')->limit(500)->get();
    }

    public function refused(): Collection
    {
        return DB::table('outbox')->whereNotNull('refused')->orderBy('place')->get();
    }

    public function remove(string $id): void
    {
        DB::table('outbox')->where('id', $id)->delete();
    }

    public function refuse(string $id, string $reason): void
    {
        DB::table('outbox')->where('id', $id)->update(['refused' => $reason]);
    }

    /** How many refused ones are to be posted again. */
    public function retry(): int
    {
        return DB::table('outbox')->whereNotNull('refused')->update(['refused' => null]);
    }
}
