<?php
// Renders lines of {"template", "context", "templates"?, "now"?} in real Twig and answers each with {"output", "now"} or
// {"error", "phase", "line"}. The first argument is the folder of Twig's classes, by default Debian's php-twig.
error_reporting(0);
ini_set('memory_limit', '512M');
ini_set('pcre.jit', '0');
date_default_timezone_set('UTC');
$dir = $argv[1] ?? '/usr/share/php/Twig';
if (!function_exists('trigger_deprecation')) { function trigger_deprecation() {} }
spl_autoload_register(function ($class) use ($dir) {
    if (str_starts_with($class, 'Twig\\') && is_file($f = $dir . '/' . strtr(substr($class, 5), '\\', '/') . '.php')) { require_once $f; }
});
foreach (glob($dir . '/Resources/*.php') as $f) { require_once $f; }
$phase = 'start';
ini_set('display_errors', '0');
register_shutdown_function(function () use (&$phase) { // a fatal error: PHP refuses what Twig compiled
    if ($e = error_get_last()) { fwrite(STDOUT, json_encode(['error' => 'PHP: ' . $e['message'], 'phase' => 'fatal', 'line' => 0]) . "\n"); }
});
fwrite(STDOUT, json_encode(['version' => \Twig\Environment::VERSION]) . "\n");
while (($line = fgets(STDIN)) !== false) {
    $case = json_decode($line, true, 512);
    $phase = 'compile';
    try {
        $loader = new \Twig\Loader\ArrayLoader(['index.twig' => $case['template']] + ($case['templates'] ?? []));
        $twig = new \Twig\Environment($loader, ['autoescape' => $case['autoescape'] ?? false, 'cache' => false]);
        $t = $twig->load('index.twig');
        $phase = 'runtime';
        set_time_limit(5);
        $answer = ['output' => $t->render($case['context'])];
    } catch (\Twig\Error\Error $e) {
        $answer = ['error' => $e->getRawMessage(), 'phase' => $e instanceof \Twig\Error\SyntaxError ? 'compile' : $phase, 'line' => $e->getTemplateLine()];
    } catch (\Throwable $e) {
        while (ob_get_level()) { ob_end_clean(); }
        $answer = ['error' => get_class($e) . ': ' . $e->getMessage(), 'phase' => $phase, 'line' => 0];
    }
    $answer['now'] = time();
    $out = json_encode($answer, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    fwrite(STDOUT, ($out === false ? '{"error":"output is no UTF-8","phase":"encoding","line":0}' : $out) . "\n");
}
