<?php

declare(strict_types=1);

namespace App\Inbox;

use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Symfony\Component\HttpFoundation\Response;
use WebhookGateway\Verifier;

/** Lets through what the gateway has signed, and what has not been worked off already. */
final class VerifyWebhook
{
    public function __construct(private readonly Verifier $verifier)
    {
    }

    public function handle(Request $request, \Closure $next): Response
    {
        $verified = $this->verifier->verify(
            $request->getContent(), // the raw bytes
            $id = $request->header('webhook-id'),
            $request->header('webhook-timestamp'),
            $request->header('webhook-signature'),
        );
        if (!$verified) {
            return response('', 401);
        }
        if (DB::table('inbox')->where('webhook_id', $id)->whereNotNull('handled_at')->exists()) {
            return response()->noContent(); // a duplicate is a success
        }

        return $next($request);
    }
}
