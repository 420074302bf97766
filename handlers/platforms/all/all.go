// Package all registers every platform that the ledger speaks to. Import it for its effect.
package all

import (
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/braze"      // registers braze
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/dotdigital" // registers dotdigital
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo"    // registers klaviyo
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/sfmc"       // registers sfmc
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook"    // registers webhook
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/yotpo"      // registers yotpo
)
