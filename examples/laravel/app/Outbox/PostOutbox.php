<?php

declare(strict_types=1);

namespace App\Outbox;

use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;
use Illuminate\Support\Facades\Cache;
use Illuminate\Support\Facades\Log;
use WebhookGateway\Gateway;
use WebhookGateway\Refused;
use WebhookGateway\Unavailable;

/**
 * Posts what waits in the outbox: the oldest first, and the next when the gateway has answered, which keeps the order
 * whoever works. A row leaves when the gateway has it; its id is the idempotency key, so a job that dies in between does
 * no harm.
 *
 * It is queued after each commit, and every minute by the schedule: a job may be lost, a row can't be. It carries
 * nothing, so nothing about a patient gets into the queue or into failed_jobs.
 */
final class PostOutbox implements ShouldQueue
{
    use Dispatchable;
    use InteractsWithQueue;
    use Queueable;

    private const SECONDS = 30;
    private const PAUSE = 10;
    private const LONGEST_PAUSE = 300;

    public int $tries = 1;
    public int $timeout = 60;

    public function handle(Outbox $outbox, Gateway $gateway): void
    {
        // Two would post everything twice, for nothing. Whoever finds the lock taken leaves: its owner looks once more
        // after giving it back.
        do {
            $done = Cache::lock('outbox', 90)->get(fn (): bool => $this->post($outbox, $gateway));
        } while ($done && $outbox->waiting()->isNotEmpty());
    }

    /** Whether all of it was gone through. */
    private function post(Outbox $outbox, Gateway $gateway): bool
    {
        if (Cache::has('outbox.pause')) {
            return false;
        }
        $until = now()->addSeconds(self::SECONDS);
        foreach ($outbox->waiting() as $row) {
            if ($until->isPast()) {
                self::dispatch();

                return false;
            }
            try {
                $gateway->post($row->event);
                $outbox->remove($row->id);
            } catch (Unavailable $later) {
                $seconds = min(max($later->retryAfter ?? self::PAUSE, 2), self::LONGEST_PAUSE);
                Log::warning("outbox: {$later->getMessage()} Trying again in $seconds s.");
                Cache::put('outbox.pause', true, $seconds - 1); // for the jobs that events queue meanwhile
                self::dispatch()->delay($seconds);

                return false;
            } catch (Refused $refused) {
                if ($refused->status === 401) { // the key is at fault and not the event, which waits for a better one
                    Cache::put('outbox.pause', true, self::PAUSE);
                    $this->fail($refused);

                    return false;
                }
                Log::error("outbox: event $row->id ($row->type) is refused: {$refused->getMessage()}");
                $outbox->refuse($row->id, $refused->getMessage());
            }
        }

        return true;
    }
}
