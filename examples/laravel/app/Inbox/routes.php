<?php

use App\Inbox\ReceiveWebhook;
use App\Inbox\VerifyWebhook;
use Illuminate\Support\Facades\Route;

// Outside of the groups web and api: no session, no CSRF token, no throttle of its own.
Route::post('/webhooks', ReceiveWebhook::class)->middleware(VerifyWebhook::class);
