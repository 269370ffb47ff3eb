<?php

declare(strict_types=1);

namespace App\Outbox;

use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Support\ServiceProvider;
use WebhookGateway\Gateway;

final class OutboxServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->mergeConfigFrom(__DIR__ . '/config.php', 'outbox');
        $this->app->singleton(Gateway::class, static fn () => new Gateway(
            (string) config('outbox.url'),
            (string) config('outbox.key'),
        ));
    }

    public function boot(): void
    {
        $this->loadMigrationsFrom(__DIR__ . '/migrations');
        $this->commands([ShowOutbox::class]);
        $this->callAfterResolving(Schedule::class, static function (Schedule $schedule): void {
            $schedule->job(new PostOutbox())->everyMinute();
        });
    }
}
