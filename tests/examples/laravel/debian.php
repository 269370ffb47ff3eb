<?php

// Debian's packages bring an autoloader each, instead of one that Composer makes for all.
require_once 'GuzzleHttp/autoload.php';
require_once 'Illuminate/autoload.php';
