<?php

declare(strict_types=1);

namespace App\Inbox;

use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\DB;

/** Keeps the event and answers. The work is a queued job's. */
final class ReceiveWebhook
{
    public function __invoke(Request $request): Response
    {
        $id = $request->header('webhook-id');
        DB::table('inbox')->insertOrIgnore(['webhook_id' => $id, 'body' => $request->getContent()]);
        // Also for one that is there but not worked off: the first answer may have been lost before its job was queued.
        HandleWebhook::dispatch($id);

        return response()->noContent();
    }
}
