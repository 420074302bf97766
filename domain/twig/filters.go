package twig

import "math"

// filter is a filter of the language. fn gets the input first, then one value per parameter, absent for those left
// out; it must neither keep nor change the slice.
type filter struct {
	name        string
	fn          func(r *run, a []Value) Value
	params      []string // names of the arguments behind the input
	required    int      // how many of them must be given
	variadic    bool
	safe        []string                          // strategies that its result needs no escaping for
	preEscape   string                            // its input is escaped for this strategy first
	special     func(r *run, e *filterCall) Value // instead of fn: decides itself what to evaluate
	prepare     func(p *parser, e *filterCall)    // checks and prepares at compile time
	unsupported string                            // why the filter is left out on purpose
}

// filters by name; filled in init to break the cycle with the parser.
var filters map[string]*filter

func init() {
	filters = map[string]*filter{
		"abs":              {fn: filterAbs},
		"batch":            {fn: filterBatch, params: []string{"size", "fill", "preserve_keys"}, required: 1},
		"capitalize":       {fn: filterCapitalize},
		"column":           {fn: filterColumn, params: []string{"name", "index"}, required: 1},
		"convert_encoding": {fn: filterConvertEncoding, params: []string{"to", "from"}, required: 2},
		"date":             {fn: filterDate, params: []string{"format", "timezone"}},
		"date_modify":      {fn: filterDateModify, params: []string{"modifier"}, required: 1},
		"default":          {params: []string{"default"}},
		"escape":           {fn: filterEscape, params: []string{"strategy", "charset", "autoescape"}, prepare: prepareEscape},
		"filter":           {fn: filterFilter, params: []string{"arrow"}, required: 1},
		"find":             {fn: filterFind, params: []string{"arrow"}, required: 1},
		"first":            {fn: filterFirst},
		"format":           {fn: filterFormat, variadic: true},
		"join":             {fn: filterJoin, params: []string{"glue", "and"}},
		"json_encode":      {fn: filterJSONEncode, params: []string{"options", "depth"}},
		"keys":             {fn: filterKeys},
		"last":             {fn: filterLast},
		"length":           {fn: filterLength},
		"lower":            {fn: filterLower},
		"map":              {fn: filterMap, params: []string{"arrow"}, required: 1},
		"merge":            {fn: filterMerge, variadic: true},
		"nl2br":            {fn: filterNl2br, preEscape: "html", safe: []string{"html"}},
		"number_format":    {fn: filterNumberFormat, params: []string{"decimal", "decimal_point", "thousand_sep"}},
		"raw":              {fn: func(_ *run, a []Value) Value { return a[0] }, safe: []string{"all"}},
		"reduce":           {fn: filterReduce, params: []string{"arrow", "initial"}, required: 1},
		"replace":          {fn: filterReplace, params: []string{"from"}, required: 1, prepare: prepareReplace},
		"reverse":          {fn: filterReverse, params: []string{"preserve_keys"}},
		"round":            {fn: filterRound, params: []string{"precision", "method"}},
		"shuffle":          {fn: filterShuffle},
		"slice":            {fn: filterSlice, params: []string{"start", "length", "preserve_keys"}, required: 1},
		"sort":             {fn: filterSort, params: []string{"arrow"}},
		"spaceless":        {fn: filterSpaceless, safe: []string{"html"}},
		"split":            {fn: filterSplit, params: []string{"delimiter", "limit"}, required: 1},
		"striptags":        {fn: filterStripTags, params: []string{"allowable_tags"}},
		"title":            {fn: filterTitle},
		"trim":             {fn: filterTrim, params: []string{"character_mask", "side"}},
		"upper":            {fn: filterUpper},
		"url_encode":       {fn: filterURLEncode},
	}
	filters["e"] = filters["escape"]
	const extra = "it belongs to a Twig extension that is not part of Twig itself"
	for _, name := range []string{
		"country_name", "currency_name", "currency_symbol", "data_uri", "format_currency", "format_date", "format_datetime",
		"format_number", "format_time", "html_to_markdown", "inky_to_html", "inline_css", "language_name", "locale_name",
		"markdown_to_html", "plural", "singular", "slug", "timezone_name", "u", "invoke", "trans",
	} {
		filters[name] = &filter{unsupported: extra}
	}
	for name, f := range filters {
		if f.name == "" {
			f.name = name
		}
	}
	filters["escape"].name = "escape"
}

// opt is the i-th value of a call, or a fallback when it was left out.
func opt(a []Value, i int, fallback Value) Value {
	if i >= len(a) || a[i] == absent {
		return fallback
	}
	return a[i]
}

// sequence is the input of a filter that works on arrays.
func (r *run) sequence(v Value, name string) *Array {
	switch v := v.(type) {
	case *Array:
		return v
	case *loopState:
		return v.array()
	}
	r.fail(CodeType, "%q works on a sequence or a mapping, got %s", name, typeName(v))
	return nil
}

// prepareEscape checks a constant strategy at compile time.
func prepareEscape(p *parser, e *filterCall) {
	p.tmpl.vouched = true
	if c, ok := e.args[1].(*constant); ok {
		s, _ := c.v.(string)
		for _, known := range strategies {
			if s == known {
				return
			}
		}
		failHint(CodeArguments, c.at(), didYouMean(s, strategies), "unknown escaping strategy %q", s)
	}
}

func filterEscape(r *run, a []Value) Value {
	return r.escape(a[0], r.text(opt(a, 1, "html")), truthy(opt(a, 3, false)))
}

func filterAbs(r *run, a []Value) Value {
	if s, ok := asText(a[0]); ok && wholeNumber(s) == nil {
		r.fail(CodeType, `"abs" needs a number, got %s`, quoteShort(s))
	}
	n := r.number(a[0], "abs")
	if f, ok := n.(float64); ok {
		return math.Abs(f)
	}
	if i, ok := n.(int64); ok && i < 0 {
		return r.negate(n)
	}
	return n
}

func filterJSONEncode(r *run, a []Value) Value {
	b := r.encodeJSON(nil, a[0], toInt(opt(a, 1, int64(0))))
	r.charge(len(b))
	return Markup{Text: string(b), For: SafeJSON}
}

func filterLength(r *run, a []Value) Value {
	switch v := a[0].(type) {
	case nil:
		return int64(0)
	case *Array:
		return int64(v.Len())
	case *date, *interval, *closure:
		return int64(1)
	}
	return int64(runeCount(r.text(a[0])))
}

// isEmpty is Twig's empty test: null, false, "" and an array without elements.
func isEmpty(v Value) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case *Array:
		return v.Len() == 0
	}
	s, ok := asText(v)
	return ok && s == ""
}
