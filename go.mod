module github.com/dispatch-ledger/dispatch-ledger

go 1.26

require (
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/gofrs/flock v0.13.1
	github.com/lib/pq v1.12.3
)

require golang.org/x/sys v0.47.0 // indirect
