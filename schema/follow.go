package schema

// Appended is closed when this process next appends something, or hears that another did. Take it before looking at the
// ledger and wait for it after, so that what is appended between the two is not missed.
func (l *Ledger) Appended() <-chan struct{} { return l.bell.next() }
