package twig

// Limits bound what a template may cost. A zero field means its default.
type Limits struct {
	SourceBytes int // size of one source, default 256 KiB
	ParseDepth  int // nesting of expressions and tags, default 256
	Steps       int // iterations, calls and comparisons of one render, default 1,000,000
	CallDepth   int // macros, includes, blocks and arrow functions inside each other, default 200
	OutputBytes int // output of one render, default 8 MiB
	ValueBytes  int // one string or array, default 8 MiB (an array element counts 64 bytes)
	MemoryBytes int // all strings and arrays that one render makes, default 64 MiB
	Unresolved  int // unresolved variables recorded by one render, default 1,000; more are dropped
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.SourceBytes, 256 << 10},
		{&l.ParseDepth, 256},
		{&l.Steps, 1_000_000},
		{&l.CallDepth, 200},
		{&l.OutputBytes, 8 << 20},
		{&l.ValueBytes, 8 << 20},
		{&l.MemoryBytes, 64 << 20},
		{&l.Unresolved, 1000},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return l
}
