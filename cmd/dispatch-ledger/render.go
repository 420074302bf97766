package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

func newRender(s *settings) *cobra.Command {
	var template, context, contentType string
	var strict, ndjson bool
	var partialFlags []string
	cmd := &cobra.Command{
		Use:   "render --template FILE --context FILE",
		Short: "What a target's body becomes, without sending it; --ndjson answers a stream of requests",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ndjson {
				return twig.ServeNDJSON(cmd.Context(), s.env.stdin, s.env.stdout, time.Now)
			}
			if template == "" || context == "" {
				return usagef("render needs --template and --context, or --ndjson")
			}
			source, err := readFile(s.env.stdin, template)
			if err != nil {
				return err
			}
			raw, err := readFile(s.env.stdin, context)
			if err != nil {
				return err
			}
			mode := twig.ModeText
			if strings.Contains(contentType, "json") {
				mode = twig.ModeJSON
			}
			partials, err := s.partialFiles(partialFlags)
			if err != nil {
				return err
			}
			t, err := twig.Compile(string(source), partials.Options(twig.Options{Name: template, Mode: mode}))
			if err != nil {
				return err
			}
			data, err := twig.DecodeContext(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", context, err)
			}
			got, err := t.Render(cmd.Context(), data, twig.RenderOptions{Now: time.Now, Strict: strict})
			if err != nil {
				return err
			}
			for _, u := range got.Unresolved {
				fmt.Fprintf(s.env.stderr, "%s:%d:%d: the context has no %s\n", template, u.Line, u.Column, u.Path)
			}
			_, err = fmt.Fprint(s.env.stdout, got.Output)
			return err
		},
	}
	cmd.Flags().StringVar(&template, "template", "", "file with the Twig template; - reads standard input")
	cmd.Flags().StringVar(&context, "context", "", "file with the JSON context; - reads standard input")
	cmd.Flags().StringVar(&contentType, "content-type", "application/json", "of the body: JSON types are escaped for the place they stand in, others are plain Twig")
	cmd.Flags().StringArrayVar(&partialFlags, "partial", nil, partialUsage)
	cmd.Flags().BoolVar(&strict, "strict", false, "a variable that the context lacks is an error")
	cmd.Flags().BoolVar(&ndjson, "ndjson", false, "read requests from standard input, one JSON object a line, and answer each in order")
	return cmd
}

const partialUsage = "a partial that templates name, as NAME=FILE (repeatable)"

// partialFiles reads partials from files that are given as NAME=FILE.
func (s *settings) partialFiles(given []string) (domain.Partials, error) {
	partials := domain.Partials{Sources: map[string]string{}}
	for _, g := range given {
		name, file, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return partials, usagef("--partial %q is not NAME=FILE", g)
		}
		source, err := readFile(s.env.stdin, file)
		if err != nil {
			return partials, err
		}
		partials.Sources[name] = string(source)
	}
	return partials, nil
}

func newLint(s *settings) *cobra.Command {
	var sample string
	var variables, partialFlags []string
	cmd := &cobra.Command{
		Use:   "lint FILE…",
		Short: "Check target files without sending: syntax, JSON on many contexts, unresolved names, dangerous fields; exit code 3 on errors",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var context *twig.Context
			if sample != "" {
				raw, err := readFile(s.env.stdin, sample)
				if err != nil {
					return err
				}
				if context, err = twig.DecodeContext(raw); err != nil {
					return fmt.Errorf("%s: %w", sample, err)
				}
			}
			partials, err := s.partialFiles(partialFlags)
			if err != nil {
				return err
			}
			t := table{columns: []string{"file", "where", "severity", "rule", "message"}}
			failed := false
			for _, file := range args {
				content, err := readFile(s.env.stdin, file)
				if err != nil {
					return err
				}
				for _, f := range lintTarget(content, context, variables, partials) {
					failed = failed || f.Severity == twig.SeverityError
					message := f.Message
					if f.Suggestion != "" {
						message += "; " + f.Suggestion
					}
					where := f.Template
					if f.Line > 0 {
						where += ":" + strconv.Itoa(f.Line) + ":" + strconv.Itoa(f.Column)
					}
					t.add(map[string]any{"file": file, "finding": f}, file, where, string(f.Severity), f.Rule, message)
				}
			}
			if len(t.rows) > 0 || s.output == "json" {
				if err := s.print(t); err != nil {
					return err
				}
			}
			if failed {
				return errUntrue
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&sample, "context", "", "file with a sample context: paths that it lacks are reported")
	cmd.Flags().StringArrayVar(&partialFlags, "partial", nil, partialUsage)
	cmd.Flags().StringSliceVar(&variables, "variable", nil, "name of a constant that the service gives to templates (repeatable)")
	return cmd
}

// lintTarget checks a target file: the file itself, then the templates of its body or form. Without a sample context it
// takes the file's own.
func lintTarget(content []byte, sample *twig.Context, variables []string, partials domain.Partials) []twig.Finding {
	target, err := domain.ParseTargetFile(content)
	if err != nil {
		return []twig.Finding{{Rule: "target", Severity: twig.SeverityError, Message: err.Error(), Template: "file"}}
	}
	if sample == nil && len(target.Sample) > 0 {
		if sample, err = twig.DecodeContext(target.Sample); err != nil {
			return []twig.Finding{{Rule: "target", Severity: twig.SeverityError, Message: "sample: " + err.Error(), Template: "file"}}
		}
	}
	var findings []twig.Finding
	if _, err := platforms.Lookup(target.Platform); err != nil {
		findings = append(findings, twig.Finding{Rule: "target", Severity: twig.SeverityError, Message: err.Error(), Template: "file"})
	}
	templates := map[string]string{"body": target.Body}
	if len(target.Form) > 0 {
		delete(templates, "body")
		for name, value := range target.Form {
			templates["form/"+name] = value
		}
	}
	var found []twig.Finding
	for _, part := range slices.Sorted(maps.Keys(templates)) {
		for _, f := range twig.Lint(templates[part], twig.LintOptions{
			Options: partials.Options(domain.TemplateOptions(target.Target, part)), Platform: target.Platform, URL: target.URL, Sample: sample,
			Variables: append(target.VariableNames(), variables...), Now: time.Now,
		}) {
			if f.Template == "" {
				f.Template = part
			}
			found = append(found, f)
		}
	}
	findings = append(findings, found...)
	compiled, err := domain.CompileTarget(target.Target, partials)
	if err == nil {
		err = compiled.CheckSample(variables)
	}
	if err != nil && !slices.ContainsFunc(found, func(f twig.Finding) bool { return f.Severity == twig.SeverityError }) {
		findings = append(findings, twig.Finding{Rule: "target", Severity: twig.SeverityError, Message: err.Error(), Template: "file"})
	}
	return findings
}
