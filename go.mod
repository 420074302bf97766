module github.com/dispatch-ledger/dispatch-ledger

go 1.26
