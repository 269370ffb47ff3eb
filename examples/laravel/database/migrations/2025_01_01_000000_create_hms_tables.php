<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

/** What the hospital's application had before: nothing in here is about events. */
return new class () extends Migration {
    public function up(): void
    {
        Schema::create('appointments', function (Blueprint $table): void {
            $table->string('id')->primary();
            $table->string('patient_id');
            $table->string('practitioner_id');
            $table->string('location_id');
            $table->dateTime('starts_at'); // UTC
            $table->string('email')->nullable();
            $table->unsignedInteger('version')->default(1);
            $table->timestamps();
        });
        Schema::create('payments', function (Blueprint $table): void {
            $table->string('id')->primary();
            $table->string('invoice_id');
            $table->string('patient_id');
            $table->decimal('amount', 12, 2);
            $table->string('currency', 3);
            $table->timestamps();
        });
        Schema::create('lab_results', function (Blueprint $table): void {
            $table->string('id')->primary();
            $table->string('order_id');
            $table->string('patient_id');
            $table->string('status');
            $table->unsignedInteger('version')->default(0);
            $table->boolean('abnormal')->default(false);
            $table->timestamps();
        });
        Schema::create('claims', function (Blueprint $table): void {
            $table->string('id')->primary();
            $table->string('patient_id');
            $table->string('payer_id');
            $table->string('member_id');
            $table->decimal('total', 12, 2);
            $table->string('currency', 3);
            $table->timestamps();
        });
        Schema::create('shifts', function (Blueprint $table): void {
            $table->string('id')->primary();
            $table->string('staff_id');
            $table->string('facility_id');
            $table->dateTime('starts_at'); // UTC
            $table->unsignedInteger('version')->default(1);
            $table->timestamps();
        });
    }
};
