<?php

declare(strict_types=1);

namespace App\Inbox;

use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;
use Illuminate\Queue\Middleware\WithoutOverlapping;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Mail;

/** Works off one event, once. The job knows its id only, so nothing about a patient gets into the queue. */
final class HandleWebhook implements ShouldQueue
{
    use Dispatchable;
    use InteractsWithQueue;
    use Queueable;

    public int $tries = 20;
    public int $timeout = 60;
    /** @var list<int> */
    public array $backoff = [5, 30, 300, 1800];

    public function __construct(private readonly string $webhookId)
    {
    }

    /** @return list<object> */
    public function middleware(): array
    {
        return [(new WithoutOverlapping($this->webhookId))->releaseAfter(5)->expireAfter(90)];
    }

    public function handle(): void
    {
        $kept = DB::table('inbox')->where('webhook_id', $this->webhookId)->whereNull('handled_at')->first();
        if ($kept === null) {
            return; // a duplicate's job
        }
        $event = json_decode($kept->body, true, flags: JSON_THROW_ON_ERROR);
        match (($event['test'] ?? false) ? 'test' : $event['type']) {
            'appointment.scheduled' => $this->tellPatient($event['data']),
            default => null, // a test and a type that we do not know are a success, too
        };
        DB::table('inbox')->where('webhook_id', $this->webhookId)->update(['handled_at' => now(), 'body' => null]);
    }

    /** @param array<string, mixed> $appointment */
    private function tellPatient(array $appointment): void
    {
        if (($appointment['contact']['channel'] ?? null) !== 'email') {
            return;
        }
        $time = Carbon::parse($appointment['starts_at'])->timezone(config('inbox.timezone'))->format('l j F, H:i T');
        // Nothing clinical.
        Mail::raw("Your appointment is booked for $time.", static function ($mail) use ($appointment): void {
            $mail->to($appointment['contact']['address'])->subject('Your appointment at City Hospital');
        });
    }
}
