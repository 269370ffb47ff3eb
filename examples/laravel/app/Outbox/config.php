<?php

return [
    'url' => env('GATEWAY_URL'),
    'key' => env('GATEWAY_API_KEY'),
];
