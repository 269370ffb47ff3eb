<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class () extends Migration {
    public function up(): void
    {
        Schema::create('outbox', function (Blueprint $table): void {
            $table->id('place'); // the order in which events are posted
            $table->uuid('id')->unique(); // the idempotency key
            $table->string('type');
            $table->longText('event'); // never json(): the database would write the bytes anew
            $table->text('refused')->nullable(); // why the gateway said no
            $table->timestamp('written_at')->useCurrent();
        });
    }

    public function down(): void
    {
        Schema::drop('outbox');
    }
};
