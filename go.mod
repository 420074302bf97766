module github.com/dispatch-ledger/dispatch-ledger

go 1.26

require (
	github.com/nikolalohinski/gonja/v2 v2.9.1
	golang.org/x/text v0.23.0
)

require (
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	golang.org/x/sys v0.32.0 // indirect
)
