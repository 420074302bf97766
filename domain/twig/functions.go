package twig

import (
	"math"
)

// function is a function of the language; see filter for fn's arguments.
type function struct {
	fn          func(r *run, a []Value) Value
	params      []string
	required    int
	variadic    bool
	safe        bool // its result needs no escaping
	definable   bool // "is defined" asks whether it has a value
	check       func(c *functionCall)
	unsupported string
}

var functions map[string]*function

func init() {
	const noClasses = "there are no PHP classes here"
	functions = map[string]*function{
		"constant":             {fn: functionConstant, params: []string{"constant", "object"}, required: 1, definable: true},
		"cycle":                {fn: functionCycle, params: []string{"values", "position"}, required: 2},
		"date":                 {fn: functionDate, params: []string{"date", "timezone"}},
		"dump":                 {unsupported: "it belongs to Twig's debug extension; preview the target instead"},
		"enum":                 {fn: functionEnum, params: []string{"enum"}, required: 1, check: checkEnum},
		"enum_cases":           {fn: functionEnum, params: []string{"enum"}, required: 1, check: checkEnum},
		"max":                  {fn: functionMax, params: []string{"value"}, required: 1, variadic: true},
		"min":                  {fn: functionMin, params: []string{"value"}, required: 1, variadic: true},
		"random":               {fn: functionRandom, params: []string{"values", "max"}},
		"range":                {fn: functionRange, params: []string{"low", "high", "step"}, required: 2},
		"source":               {fn: functionSource, params: []string{"name", "ignore_missing"}, required: 1, safe: true},
		"template_from_string": {unsupported: "templates are saved, not made while rendering"},
		"html_classes":         {unsupported: "it belongs to a Twig extension that is not part of Twig itself"},
		"country_timezones":    {unsupported: noClasses},
	}
}

func functionCycle(r *run, a []Value) Value {
	list := r.sequence(a[0], "cycle")
	n := int64(list.Len())
	if n == 0 {
		r.fail(CodeArguments, "cycle needs a sequence that is not empty")
	}
	i := toInt(a[1]) % n
	if i < 0 {
		i += n
	}
	v, ok := list.Get(intKey(i))
	if !ok {
		r.fail(CodeArguments, "cycle needs a sequence with the keys 0, 1, 2, …")
	}
	return v
}

func functionMax(r *run, a []Value) Value { return r.extreme(a, 1, "max") }
func functionMin(r *run, a []Value) Value { return r.extreme(a, -1, "min") }

func (r *run) extreme(a []Value, sign int, name string) Value {
	values := a
	if len(a) == 1 || len(a) > 1 && a[1] == absent {
		values = r.sequence(a[0], name).vals
		if len(values) == 0 {
			r.fail(CodeArguments, "%s of an empty sequence", name)
		}
	}
	best := values[0]
	for _, v := range values[1:] {
		if v != absent && r.compare(v, best) == sign {
			best = v
		}
	}
	return best
}

func functionRange(r *run, a []Value) Value {
	return r.rangeOf(a[0], a[1], opt(a, 2, int64(1)))
}

func functionSource(r *run, a []Value) Value {
	name := r.text(a[0])
	if p := r.root.options.Partials; p != nil {
		if s, ok := p(name); ok {
			return r.str(newSource(name, s).text)
		}
	}
	if truthy(opt(a, 1, false)) {
		return ""
	}
	failHint(CodePartial, r.at, didYouMean(name, r.root.loader.known()), "template %q is not known", name)
	return nil
}

func checkEnum(c *functionCall) {
	if e, ok := c.args[0].(*constant); ok {
		fail(CodeUnsupported, e.at(), "PHP enums do not exist here")
	}
}

func functionEnum(r *run, _ []Value) Value {
	r.fail(CodeUnsupported, "PHP enums do not exist here")
	return nil
}

// functionRandom draws from a sequence, a text or a range. The draw is a function of the render: the same template,
// context and place give the same value, so that a body can be rendered again and compared.
func functionRandom(r *run, a []Value) Value {
	v, limit := opt(a, 0, nil), opt(a, 1, nil)
	switch v := v.(type) {
	case nil:
		if limit == nil {
			return int64(r.random(math.MaxInt32)) //nolint:gosec // below 2³¹
		}
		return int64(r.random(uint64(max(toInt(limit), 0)) + 1)) //nolint:gosec // not negative
	case int64, float64:
		low, high := int64(0), toInt(v)
		if limit != nil {
			low, high = toInt(v), toInt(limit)
		}
		if high < low {
			low, high = high, low
		}
		span := uint64(high) - uint64(low)
		if span == math.MaxUint64 {
			return int64(r.random(0)) //nolint:gosec // all of them
		}
		return low + int64(r.random(span+1)) //nolint:gosec // inside the range
	case *Array:
		if v.Len() == 0 {
			r.fail(CodeArguments, "random cannot pick from an empty sequence")
		}
		return v.vals[r.random(uint64(v.Len()))] //nolint:gosec // a length
	}
	runes := []rune(r.text(v))
	if len(runes) == 0 {
		return ""
	}
	return string(runes[r.random(uint64(len(runes)))])
}

// random is a number below n (any for 0), from a generator that starts the same in every render (SplitMix64).
func (r *run) random(n uint64) uint64 {
	r.seed += 0x9e3779b97f4a7c15
	z := r.seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	if n == 0 {
		return z
	}
	return z % n
}

func (r *run) shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, int(r.random(uint64(i+1)))) //nolint:gosec // below i+1
	}
}

// constants is the closed table behind constant(): what templates use of PHP's.
var constants = map[string]Value{
	"PHP_EOL": "\n", "PHP_INT_MAX": int64(math.MaxInt64), "PHP_INT_MIN": int64(math.MinInt64), "PHP_INT_SIZE": int64(8),
	"PHP_FLOAT_EPSILON": 2.220446049250313e-16, "PHP_FLOAT_MAX": math.MaxFloat64, "PHP_FLOAT_MIN": 2.2250738585072014e-308,
	"M_PI": math.Pi, "M_E": math.E, "NAN": math.NaN(), "INF": math.Inf(1),
	"DATE_ATOM": `Y-m-d\TH:i:sP`, "DATE_COOKIE": `l, d-M-Y H:i:s T`, "DATE_ISO8601": `Y-m-d\TH:i:sO`, "DATE_RFC822": `D, d M y H:i:s O`,
	"DATE_RFC850": `l, d-M-y H:i:s T`, "DATE_RFC1036": `D, d M y H:i:s O`, "DATE_RFC1123": `D, d M Y H:i:s O`,
	"DATE_RFC7231": `D, d M Y H:i:s \G\M\T`, "DATE_RFC2822": `D, d M Y H:i:s O`, "DATE_RFC3339": `Y-m-d\TH:i:sP`,
	"DATE_RFC3339_EXTENDED": `Y-m-d\TH:i:s.vP`, "DATE_RSS": `D, d M Y H:i:s O`, "DATE_W3C": `Y-m-d\TH:i:sP`,
	"JSON_HEX_TAG": int64(jsonHexTag), "JSON_HEX_AMP": int64(jsonHexAmp), "JSON_HEX_APOS": int64(jsonHexApos), "JSON_HEX_QUOT": int64(jsonHexQuot),
	"JSON_FORCE_OBJECT": int64(jsonForceObject), "JSON_NUMERIC_CHECK": int64(jsonNumericCheck), "JSON_UNESCAPED_SLASHES": int64(jsonUnescapedSlashes),
	"JSON_PRETTY_PRINT": int64(jsonPrettyPrint), "JSON_UNESCAPED_UNICODE": int64(jsonUnescapedUnicode),
	"JSON_PARTIAL_OUTPUT_ON_ERROR": int64(jsonPartialOutput), "JSON_PRESERVE_ZERO_FRACTION": int64(jsonPreserveZero),
	"JSON_INVALID_UTF8_IGNORE": int64(jsonInvalidIgnore), "JSON_INVALID_UTF8_SUBSTITUTE": int64(jsonInvalidSubstitute),
	"JSON_THROW_ON_ERROR": int64(1 << 22), "JSON_UNESCAPED_LINE_TERMINATORS": int64(1 << 11), "JSON_BIGINT_AS_STRING": int64(2), "JSON_ERROR_NONE": int64(0),
	"ENT_QUOTES": int64(3), "ENT_COMPAT": int64(2), "ENT_NOQUOTES": int64(0), "ENT_HTML5": int64(48), "ENT_SUBSTITUTE": int64(8),
	"E_ERROR": int64(1), "E_WARNING": int64(2), "E_PARSE": int64(4), "E_NOTICE": int64(8), "E_ALL": int64(32767),
	"PHP_ROUND_HALF_UP": int64(1), "PHP_ROUND_HALF_DOWN": int64(2), "PHP_ROUND_HALF_EVEN": int64(3), "PHP_ROUND_HALF_ODD": int64(4),
	"SORT_REGULAR": int64(0), "SORT_NUMERIC": int64(1), "SORT_STRING": int64(2), "COUNT_RECURSIVE": int64(1), "PHP_VERSION": "8.2.0",
}

func init() {
	for name, v := range constants {
		if len(name) > 5 && name[:5] == "DATE_" {
			for _, class := range []string{"DateTimeInterface::", "DateTime::", "DateTimeImmutable::"} {
				constants[class+name[5:]] = v
			}
		}
	}
}

func lookupConstant(name string) (Value, bool) {
	if name != "" && name[0] == '\\' {
		name = name[1:]
	}
	v, ok := constants[name]
	return v, ok
}

func functionConstant(r *run, a []Value) Value {
	name := r.text(a[0])
	if object := opt(a, 1, nil); object != nil {
		r.fail(CodeUnsupported, "constant %q of an object: there are no PHP objects here", name)
	}
	v, ok := lookupConstant(name)
	if !ok {
		failHint(CodeUnsupported, r.at, didYouMean(name, sortedKeys(constants)), "constant %q is not available", name)
	}
	return v
}

// definedConstant is constant(…) is defined.
type definedConstant struct {
	pos
	call *functionCall
}

func (e *definedConstant) eval(r *run) Value {
	if len(e.call.args) > 1 && e.call.args[1] != nil {
		r.at = e.at()
		r.fail(CodeUnsupported, "constants of an object: there are no PHP objects here")
	}
	_, ok := lookupConstant(r.text(e.call.args[0].eval(r)))
	return ok
}
