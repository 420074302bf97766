package sfmc

import "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"

var needs = []platforms.Need{
	{Name: "client_id", Doc: "of the installed package's server-to-server integration"},
	{Name: "client_secret", Secret: true, Doc: "of the installed package's server-to-server integration"},
	{Name: "subdomain", Optional: true, Doc: "the first part of the Authentication Base URI, 28 characters starting with mc; needed unless an url is given"},
	{Name: "account_id", Optional: true, Doc: "MID of the business unit; by default the package's own"},
	{Name: "key_is_email", Optional: true, Doc: "true when the account's subscriber keys are email addresses"},
	{Name: "sms_extension", Optional: true, Doc: "external key of a data extension that a scheduled query over _SMSSubscriptionLog fills with MobileNumber, OptOutDate, OptInDate and, to keep keywords apart, SubscriptionDefinitionID; without it SMS opt-outs are not read"},
	{Name: "signature_key", Secret: true, Optional: true, Doc: "of the event notification callback, as it was shown once"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	tenant := Tenant{Auth: c.URL, REST: c.URL, SOAP: c.URL}
	if c.URL == "" {
		var err error
		if tenant, err = TenantOf(c.Settings["subdomain"]); err != nil {
			return nil, err
		}
	}
	return NewClient(Config{
		HTTP: c.HTTP, Tenant: tenant, ClientID: c.Settings["client_id"], ClientSecret: c.Secrets["client_secret"], MID: c.Settings["account_id"], Now: c.Now,
		KeyIsEmail: c.Settings["key_is_email"] == "true", SMSExtension: c.Settings["sms_extension"],
	}), nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) {
	return platforms.AnyOf(c, "signature_key", func(key platforms.Secret) platforms.Inbound { return Inbound{Key: key, Now: c.Now} }), nil
}
