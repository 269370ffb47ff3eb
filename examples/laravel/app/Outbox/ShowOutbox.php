<?php

declare(strict_types=1);

namespace App\Outbox;

use Illuminate\Console\Command;

/** For people and for monitoring: exits with 1 if an event was refused, or has waited for longer than ten minutes. */
final class ShowOutbox extends Command
{
    protected $signature = 'outbox {--retry : Post those again that were refused}';
    protected $description = 'Show what the gateway does not have yet, and why';

    public function handle(Outbox $outbox): int
    {
        if ($this->option('retry')) {
            $this->line($outbox->retry() . ' to be posted again');
            PostOutbox::dispatch();

            return self::SUCCESS;
        }
        $waiting = $outbox->waiting();
        $oldest = $waiting->first()->written_at ?? null;
        $this->line($oldest === null ? 'nothing waits' : "{$waiting->count()} wait, the oldest since $oldest");
        foreach ($outbox->refused() as $row) {
            $this->line("refused: $row->id $row->type: $row->refused");
        }
        $late = $oldest !== null && now()->subMinutes(10)->greaterThan($oldest);

        return $late || $outbox->refused()->isNotEmpty() ? self::FAILURE : self::SUCCESS;
    }
}
