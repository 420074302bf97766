// Package sfmc speaks Salesforce Marketing Cloud Engagement: REST for sends, SOAP for suppressions, the Event
// Notification Service for webhooks.
//
// Facts come from Salesforce's reference pages, the WSDL in its own SDKs, and their code. Hosts are the tenant's; a
// token of the client credentials grant lasts 20 minutes, speaks for one business unit and has no refresh.
//
// A send's messageKey is an idempotency key chosen by the caller: a second one is rejected for two to three days. The
// legacy triggered send has none, and puts errors inside a 202. There is no REST list of unsubscribes: events are
// retrieved by SOAP and carry a subscriber key, not an address, so the address is asked for besides.
package sfmc
