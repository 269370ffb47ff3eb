<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Claim;
use App\Outbox\Outbox;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;

final class ClaimController extends Controller
{
    public function store(Request $request, Outbox $outbox): JsonResponse
    {
        $given = $request->validate([
            'patient_id' => 'required|string',
            'payer_id' => 'required|string',
            'member_id' => 'required|string',
            'total' => 'required|numeric',
            'currency' => 'required|size:3',
        ]);
        $claim = DB::transaction(static function () use ($given, $outbox): Claim {
            $claim = Claim::create($given);
            $outbox->write('insurance_claim.submitted', $claim->toEvent(), subject: "patient:{$claim->patient_id}");

            return $claim;
        });

        return response()->json($claim, 201);
    }
}
