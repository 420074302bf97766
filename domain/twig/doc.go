// Package twig renders Twig 3 templates: the bodies, addresses and headers that targets send.
//
// Users paste the Twig they already have, so what prints here is what Twig on PHP prints, byte for byte, with PHP's
// values, comparison, dates and number formats. The front-end and the evaluator are ours; gonja's renderer hosts
// them (see docs/adr/0004-twig-own-evaluator-hosted-by-gonja.md).
//
//	source ──lexer──▶ tokens ──parser──▶ statements and expressions ──Template
//	Template + Context ──gonja's exec.Renderer──▶ body.Execute ──▶ output (JSON aware) ──▶ Result
//
// What Twig does not have is safety inside JSON: in ModeJSON a printed value takes the form of the place it is
// printed at, and can never break out of it; see output.go.
//
// The package is pure. It reads no file, no clock and no network: partials come from a function, the time from
// RenderOptions.Now, and a template that asks for anything else is refused by name.
package twig
