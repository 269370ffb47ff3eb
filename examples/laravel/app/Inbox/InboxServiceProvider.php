<?php

declare(strict_types=1);

namespace App\Inbox;

use Illuminate\Support\ServiceProvider;
use WebhookGateway\Verifier;

final class InboxServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->mergeConfigFrom(__DIR__ . '/config.php', 'inbox');
        $this->app->singleton(Verifier::class, static fn () => new Verifier(array_values(config('inbox.secrets'))));
    }

    public function boot(): void
    {
        $this->loadMigrationsFrom(__DIR__ . '/migrations');
        $this->loadRoutesFrom(__DIR__ . '/routes.php');
    }
}
