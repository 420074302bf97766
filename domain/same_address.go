package domain

import "maps"

// WithErased adds to a person's answers on a channel the opt-outs of somebody who was erased and had the address that the
// person has now. What the erased person agreed to is nobody's any more; what they refused holds until whoever has the
// address answers. An answer of theirs made later ends an opt-out of everything on the channel, for what it does speak of.
func WithErased(own, erased map[Purpose]Answer, hash string) map[Purpose]Answer {
	out := maps.Clone(own)
	if out == nil {
		out = map[Purpose]Answer{}
	}
	refuse := func(p Purpose, a Answer) {
		said, asked := out[p]
		if !asked || said.Status != OptedOut && !said.DecidedAt.After(a.DecidedAt) || said.SameAddress != "" && a.Supersedes(said) {
			out[p] = a
		}
	}
	for purpose, a := range erased {
		if a.Status != OptedOut {
			continue
		}
		a.SameAddress = hash
		spoke := false
		for _, said := range own {
			spoke = spoke || said.SameAddress == "" && said.DecidedAt.After(a.DecidedAt)
		}
		if purpose != PurposeAll || !spoke {
			refuse(purpose, a)
			continue
		}
		for _, each := range Purposes[1:] {
			refuse(each, a)
		}
	}
	return out
}
