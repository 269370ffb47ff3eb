<?php

declare(strict_types=1);

namespace App\Http\Controllers;

use App\Models\Claim;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Http;

final class ClaimController extends Controller
{
    public function store(Request $request): JsonResponse
    {
        $given = $request->validate([
            'patient_id' => 'required|string',
            'payer_id' => 'required|string',
            'member_id' => 'required|string',
            'total' => 'required|numeric',
            'currency' => 'required|size:3',
        ]);
        $claim = Claim::create($given);
        Http::post(config('services.partners.insurer'), $claim->toArray());

        return response()->json($claim, 201);
    }
}
