<?php

declare(strict_types=1);

namespace App\Models;

use Illuminate\Database\Eloquent\Model;
use Illuminate\Support\Str;

abstract class Record extends Model
{
    public $incrementing = false;
    protected $keyType = 'string';
    protected $guarded = [];

    /**
     * What partners may know, by the schema of the event's type. Never toArray(): a column that is added some day would
     * go out to everybody.
     *
     * @return array<string, mixed>
     */
    abstract public function toEvent(): array;

    protected static function booted(): void
    {
        static::creating(static fn (self $record) => $record->id ??= static::PREFIX . Str::uuid());
    }
}
