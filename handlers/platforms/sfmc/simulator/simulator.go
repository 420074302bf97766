// Package simulator behaves as Marketing Cloud is documented to: tokens of 20 minutes, messages that reject a
// repeated key, a legacy send with errors inside a 202, SOAP retrievals of 2,500 objects that go on by request id, and
// events that name a subscriber and no address.
//
// It shares no code with package sfmc.
package simulator

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// batch is how many objects a retrieval gives at once.
const batch = 2500

// Simulator is one tenant, all of its hosts in one. Make it with [New]. An account's key is its client id.
type Simulator struct {
	*simulator.Core
	opts    simulator.Options
	limiter *simulator.Limiter

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	tokens   map[string]token
	later    simulator.Later
}

type token struct {
	account string
	expires time.Time
}

// Sent is one message that was taken.
type Sent struct {
	Key  string `json:"key,omitempty"` // messageKey
	To   string `json:"to"`
	Kind string `json:"kind"` // message, triggered or journey
}

type account struct {
	simulator.Account
	people   simulator.People
	events   []event
	sent     []Sent
	keys     map[string]time.Time // messageKey to when
	requests map[string]*retrieval
	texts    []map[string]string // rows of the SMS data extension
}

// event is one row of an event object.
type event struct {
	object, key, list, kind, status, reason string
	at                                      time.Time
	master                                  bool
}

type retrieval struct {
	rows   []object
	passed int
}

// object is one result of a retrieval.
type object struct {
	XMLName      xml.Name `xml:"Results"`
	Type         string   `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	Email        string   `xml:"EmailAddress,omitempty"`
	Key          string   `xml:"SubscriberKey,omitempty"`
	Status       string   `xml:"Status,omitempty"`
	Unsubscribed string   `xml:"UnsubscribedDate,omitempty"`
	EventDate    string   `xml:"EventDate,omitempty"`
	EventType    string   `xml:"EventType,omitempty"`
	Master       string   `xml:"IsMasterUnsubscribed,omitempty"`
	List         string   `xml:"List>ID,omitempty"`
	Current      string   `xml:"CurrentStatus,omitempty"`
	Previous     string   `xml:"PreviousStatus,omitempty"`
	Reason       string   `xml:"ReasonUnsub,omitempty"`
	Created      string   `xml:"CreatedDate,omitempty"`
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{
		opts: opts, accounts: map[string]*account{}, tokens: map[string]token{},
		limiter: simulator.NewLimiter(opts.Now, simulator.Window{Limit: 2000, Per: time.Minute}),
	}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{Account: a, keys: map[string]time.Time{}, requests: map[string]*retrieval{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2/token", s.accessToken)
	mux.HandleFunc("POST /Service.asmx", s.soap)
	for _, channel := range []string{"email", "sms"} {
		mux.HandleFunc("POST /messaging/v1/"+channel+"/messages/{key}", s.rest(s.message))
		mux.HandleFunc("POST /messaging/v1/"+channel+"/messages/{$}", s.rest(s.messages))
	}
	mux.HandleFunc("POST /messaging/v1/messageDefinitionSends/{definition}/send", s.rest(s.triggered))
	mux.HandleFunc("POST /interaction/v1/events", s.rest(s.journey))
	mux.HandleFunc("GET /data/v1/customobjectdata/key/{extension}/rowset", s.rest(s.rowset))
	mux.HandleFunc("POST /platform/v1/ens-verify", s.rest(func(_ *account, w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusOK) }))
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, body []byte) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if found := oauth.FindSubmatch(body); text == "" && found != nil {
			text = string(found[1])
		}
		return s.tokens[text].account
	}, mux, s)
	return s, nil
}

var oauth = regexp.MustCompile(`<fueloauth[^>]*>([^<]+)<`)

func (s *Simulator) accessToken(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Grant  string `json:"grant_type"`
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/x-www-form-urlencoded" {
		request.Grant, request.ID, request.Secret = r.PostFormValue("grant_type"), r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	} else if json.NewDecoder(r.Body).Decode(&request) != nil {
		request.Grant = ""
	}
	if request.Grant != "client_credentials" {
		simulator.WriteJSON(w, http.StatusBadRequest, "application/json", map[string]any{"error": "invalid_request", "error_description": "grant_type is required"})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.accounts {
		if a.Key == request.ID && a.Secret == request.Secret {
			text := fmt.Sprintf("token-%s-%d", name, len(s.tokens)+1)
			s.tokens[text] = token{account: name, expires: s.opts.Now().Add(1079 * time.Second)}
			simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"access_token": text, "token_type": "Bearer", "expires_in": 1079})
			return
		}
	}
	simulator.WriteJSON(w, http.StatusUnauthorized, "application/json", map[string]any{"error": "invalid_client", "error_description": "Invalid client ID."})
}

// valid is the account of a token that is good now. The caller holds the mutex.
func (s *Simulator) valid(text string) *account {
	given, ok := s.tokens[text]
	if !ok || !s.opts.Now().Before(given.expires) {
		return nil
	}
	return s.accounts[given.account]
}

func refuse(w http.ResponseWriter, status, code int, message string) {
	simulator.WriteJSON(w, status, "application/json", map[string]any{"message": message, "errorcode": code, "documentation": "https://developer.salesforce.com/docs"})
}

func (s *Simulator) rest(do func(a *account, w http.ResponseWriter, r *http.Request, body []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			refuse(w, http.StatusBadRequest, 10003, "Unreadable.")
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later.Run(s.opts.Now())
		text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		a := s.valid(text)
		switch {
		case a == nil:
			refuse(w, http.StatusUnauthorized, 0, "Not Authorized")
		case !s.opts.Unlimited && !s.limiter.Take(a.Name).OK:
			w.Header().Set("Retry-After", "5")
			simulator.WriteJSON(w, http.StatusTooManyRequests, "application/json", map[string]any{"message": "Rate limit exceeded", "errorcode": 50100, "retryAfter": 5})
		default:
			do(a, w, r, body)
		}
	}
}

type recipient struct {
	Contact    string         `json:"contactKey"`
	To         string         `json:"to"`
	Key        string         `json:"messageKey"`
	Attributes map[string]any `json:"attributes"`
}

// take takes a message in; the text says why it is not.
func (s *Simulator) take(a *account, path string, r recipient) string {
	now := s.opts.Now()
	if r.Contact == "" {
		return "contactKey is required"
	}
	window := 72 * time.Hour
	if strings.Contains(path, "/email/") {
		window = 48 * time.Hour
	}
	if at, seen := a.keys[r.Key]; seen && now.Sub(at) < window {
		return "The messageKey is a duplicate: it must be unique"
	}
	a.keys[r.Key] = now
	a.sent = append(a.sent, Sent{Key: r.Key, To: r.To, Kind: "message"})
	return ""
}

func (s *Simulator) message(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var request struct {
		Definition string     `json:"definitionKey"`
		Recipient  *recipient `json:"recipient"`
	}
	if json.Unmarshal(body, &request) != nil || request.Definition == "" || request.Recipient == nil {
		refuse(w, http.StatusBadRequest, 10000, "definitionKey and recipient are required")
		return
	}
	request.Recipient.Key = r.PathValue("key")
	if problem := s.take(a, r.URL.Path, *request.Recipient); problem != "" {
		refuse(w, http.StatusBadRequest, 10006, problem)
		return
	}
	simulator.WriteJSON(w, http.StatusAccepted, "application/json", map[string]any{
		"requestId": "req-" + request.Recipient.Key, "errorcode": 0, "responses": []any{map[string]any{"messageKey": request.Recipient.Key}},
	})
}

func (s *Simulator) messages(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var request struct {
		Definition string      `json:"definitionKey"`
		Recipients []recipient `json:"recipients"`
	}
	if json.Unmarshal(body, &request) != nil || request.Definition == "" || len(request.Recipients) == 0 || len(request.Recipients) > 2000 {
		refuse(w, http.StatusBadRequest, 10000, "definitionKey and 1 to 2000 recipients are required")
		return
	}
	responses := []any{}
	for _, one := range request.Recipients {
		answer := map[string]any{"messageKey": one.Key}
		if problem := s.take(a, r.URL.Path, one); problem != "" {
			answer["errorcode"], answer["message"] = 10006, problem
		}
		responses = append(responses, answer)
	}
	simulator.WriteJSON(w, http.StatusAccepted, "application/json", map[string]any{"requestId": "req", "errorcode": 0, "responses": responses})
}

func (s *Simulator) triggered(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		To struct {
			Address string `json:"Address"`
			Key     string `json:"SubscriberKey"`
		} `json:"To"`
	}
	if json.Unmarshal(body, &request) != nil {
		refuse(w, http.StatusBadRequest, 10000, "Bad JSON")
		return
	}
	response := map[string]any{"recipientSendId": fmt.Sprintf("send-%d", len(a.sent)+1), "hasErrors": false, "messages": []string{"Queued"}}
	if !strings.Contains(request.To.Address, "@") || request.To.Key == "" {
		response["hasErrors"], response["messages"] = true, []string{"Unable to queue: Address and SubscriberKey are required"}
	} else {
		a.sent = append(a.sent, Sent{To: request.To.Address, Kind: "triggered"})
	}
	simulator.WriteJSON(w, http.StatusAccepted, "application/json", map[string]any{"requestId": "req", "responses": []any{response}})
}

func (s *Simulator) journey(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct{ ContactKey, EventDefinitionKey string }
	if json.Unmarshal(body, &request) != nil || request.ContactKey == "" || request.EventDefinitionKey == "" {
		refuse(w, http.StatusBadRequest, 30003, "ContactKey and EventDefinitionKey are required")
		return
	}
	a.sent = append(a.sent, Sent{To: request.ContactKey, Kind: "journey"})
	simulator.WriteJSON(w, http.StatusCreated, "application/json", map[string]any{"eventInstanceId": fmt.Sprintf("instance-%d", len(a.sent))})
}

// Sent is what an account sent, in order.
func (s *Simulator) Sent(account string) []Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return slices.Clone(a.sent)
	}
	return nil
}

// rowset is the SMS data extension: what a query over _SMSSubscriptionLog wrote, times in Central without a mark.
func (s *Simulator) rowset(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	page, err1 := strconv.Atoi(r.URL.Query().Get("$page"))
	size, err2 := strconv.Atoi(r.URL.Query().Get("$pageSize"))
	if err1 != nil || err2 != nil || page < 1 || size < 1 || size > batch {
		refuse(w, http.StatusBadRequest, 10003, "$page and $pageSize are required")
		return
	}
	items := []any{}
	from := min((page-1)*size, len(a.texts))
	for _, row := range a.texts[from:min(from+size, len(a.texts))] {
		items = append(items, map[string]any{"keys": map[string]string{"subscriberkey": row["subscriberkey"]}, "values": row})
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"items": items, "page": page, "pageSize": size, "count": len(a.texts)})
}

// request is any SOAP request.
type request struct {
	Token    string `xml:"Header>fueloauth"`
	Retrieve *struct {
		Object     string   `xml:"RetrieveRequest>ObjectType"`
		Properties []string `xml:"RetrieveRequest>Properties"`
		Continue   string   `xml:"RetrieveRequest>ContinueRequest"`
		Filter     struct {
			Property string   `xml:"Property"`
			Operator string   `xml:"SimpleOperator"`
			Values   []string `xml:"Value"`
			Date     string   `xml:"DateValue"`
		} `xml:"RetrieveRequest>Filter"`
	} `xml:"Body>RetrieveRequestMsg"`
	Update *struct {
		Action  string `xml:"Options>SaveOptions>SaveOption>SaveAction"`
		Objects []struct {
			Email  string `xml:"EmailAddress"`
			Key    string `xml:"SubscriberKey"`
			Status string `xml:"Status"`
		} `xml:"Objects"`
	} `xml:"Body>UpdateRequest"`
}

const soapNamespace = "http://schemas.xmlsoap.org/soap/envelope/"

// answer writes a SOAP envelope around a body.
func answer(w http.ResponseWriter, status int, body any) {
	type content struct{ Content any }
	out, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
		Body    content  `xml:"Body"`
	}{Body: content{body}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), out...)) // the caller may have hung up: nothing to do about it
}

type fault struct {
	XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Fault"`
	Code    string   `xml:"faultcode"`
	Text    string   `xml:"faultstring"`
}

// soap is the SOAP endpoint: what is wrong with the caller is a fault in a 500.
func (s *Simulator) soap(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := xml.NewDecoder(r.Body).Decode(&req); err != nil {
		answer(w, http.StatusInternalServerError, fault{Code: "soap:Client", Text: "Unreadable: " + err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Run(s.opts.Now())
	a := s.valid(req.Token)
	switch {
	case a == nil:
		answer(w, http.StatusInternalServerError, fault{Code: "q0:Security", Text: "Token Expired"})
	case !s.opts.Unlimited && !s.limiter.Take(a.Name).OK:
		answer(w, http.StatusInternalServerError, fault{Code: "soap:Server", Text: "Rate limit exceeded"})
	case req.Retrieve != nil && r.Header.Get("Soapaction") == "Retrieve":
		s.retrieve(a, w, req)
	case req.Update != nil && r.Header.Get("Soapaction") == "Update":
		s.update(a, w, req)
	default:
		answer(w, http.StatusInternalServerError, fault{Code: "soap:Client", Text: "Unknown SOAPAction " + r.Header.Get("Soapaction") + " " + soapNamespace})
	}
}

type retrieveResponse struct {
	XMLName xml.Name `xml:"http://exacttarget.com/wsdl/partnerAPI RetrieveResponseMsg"`
	Status  string   `xml:"OverallStatus"`
	ID      string   `xml:"RequestID"`
	Results []object
}

func (s *Simulator) retrieve(a *account, w http.ResponseWriter, req request) {
	ask := req.Retrieve
	id := ask.Continue
	run := a.requests[id]
	if id == "" {
		rows, problem := a.find(ask.Object, ask.Filter.Property, ask.Filter.Operator, ask.Filter.Date, ask.Filter.Values)
		if problem != "" {
			answer(w, http.StatusOK, retrieveResponse{Status: "Error: " + problem})
			return
		}
		id = fmt.Sprintf("request-%d", len(a.requests)+1)
		run = &retrieval{rows: rows}
		a.requests[id] = run
	}
	if run == nil {
		answer(w, http.StatusOK, retrieveResponse{Status: "Error: The Request ID is not known."})
		return
	}
	out := retrieveResponse{Status: "OK", ID: id, Results: run.rows[run.passed:min(run.passed+batch, len(run.rows))]}
	run.passed += len(out.Results)
	if run.passed < len(run.rows) {
		out.Status = "MoreDataAvailable"
	}
	answer(w, http.StatusOK, out)
}

// ForgetRetrievals drops the retrievals that are under way, as Marketing Cloud does after a while.
func (s *Simulator) ForgetRetrievals(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		clear(a.requests)
	}
}

// find gives the objects that match a filter.
func (a *account) find(kind, property, operator, date string, values []string) (rows []object, problem string) {
	const stamp = "2006-01-02T15:04:05Z"
	if kind == "Subscriber" {
		for _, p := range a.people.All {
			value := map[string]string{"SubscriberKey": p.Key, "EmailAddress": p.Email}[property]
			switch {
			case operator == "isNotNull" && value != "", operator == "equals" && len(values) == 1 && strings.EqualFold(value, values[0]),
				operator == "IN" && len(values) > 1 && slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, value) }):
			case operator == "IN" && len(values) < 2:
				return nil, "IN needs more than one value"
			default:
				continue
			}
			row := object{Type: "Subscriber", Email: p.Email, Key: p.Key, Status: p.Mail.Word}
			if p.Mail.Word == "Unsubscribed" {
				row.Unsubscribed = p.Mail.At.UTC().Format(stamp)
			}
			rows = append(rows, row)
		}
		return rows, ""
	}
	since, err := time.Parse(stamp, date)
	if err != nil || operator != "greaterThan" {
		return nil, "the filter is invalid"
	}
	for _, e := range a.events {
		if e.object != kind || !e.at.After(since) {
			continue
		}
		row := object{Type: kind, Key: e.key}
		switch kind {
		case "UnsubEvent":
			row.EventDate, row.List, row.Master = e.at.Format(stamp), e.list, strconv.FormatBool(e.master)
		case "BounceEvent":
			row.EventDate, row.EventType = e.at.Format(stamp), e.kind
		case "SubscriberStatusEvent":
			row.Created, row.Current, row.Previous, row.Reason = e.at.Format(stamp), e.status, "Normal", e.reason
		default:
			return nil, "unknown object " + kind
		}
		rows = append(rows, row)
	}
	return rows, ""
}

type updateResponse struct {
	XMLName xml.Name `xml:"http://exacttarget.com/wsdl/partnerAPI UpdateResponse"`
	Results []updateResult
	Status  string `xml:"OverallStatus"`
}

type updateResult struct {
	XMLName xml.Name `xml:"Results"`
	Code    string   `xml:"StatusCode"`
	Message string   `xml:"StatusMessage"`
	Ordinal int      `xml:"OrdinalID"`
}

func (s *Simulator) update(a *account, w http.ResponseWriter, req request) {
	out := updateResponse{Status: "OK"}
	for i, o := range req.Update.Objects {
		result := updateResult{Code: "OK", Message: "Updated Subscriber.", Ordinal: i}
		switch {
		case !strings.Contains(o.Email, "@") || o.Key == "":
			result.Code, result.Message, out.Status = "Error", "The email address is invalid.", "Has Errors"
		case !slices.Contains([]string{"Active", "Unsubscribed"}, o.Status):
			result.Code, result.Message, out.Status = "Error", "The status is invalid.", "Has Errors"
		case a.people.Find("key", o.Key) == nil && req.Update.Action != "UpdateAdd":
			result.Code, result.Message, out.Status = "Error", "The subscriber does not exist.", "Has Errors"
		default:
			apply := func() {
				now := s.later.Now(s.opts.Now).UTC()
				person := a.people.Make("key", o.Key, now)
				person.Email = strings.ToLower(o.Email)
				a.people.Know(person)
				a.set(person, o.Status, "", now)
			}
			if s.opts.Lag > 0 {
				s.later.Do(s.opts.Now().Add(s.opts.Lag), apply)
			} else {
				apply()
			}
		}
		out.Results = append(out.Results, result)
	}
	answer(w, http.StatusOK, out)
}

// set changes a subscriber's status, and notes the events that follow.
func (a *account) set(p *simulator.Person, status, reason string, at time.Time) {
	if p.Mail.Word == status {
		return
	}
	a.people.Set(p, "email", status, at)
	word := map[string]string{"Active": "Normal", "Unsubscribed": "Unsub", "Held": "Held"}[status]
	a.events = append(a.events, event{object: "SubscriberStatusEvent", key: p.Key, status: word, reason: reason, at: at})
	if status == "Unsubscribed" && reason == "" {
		a.events = append(a.events, event{object: "UnsubEvent", key: p.Key, master: true, at: at})
	}
}

// Happen implements [simulator.Keeper]. On SMS, what happens is a row of the data extension.
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[f.Account]
	at := f.At
	if at.IsZero() {
		at = s.opts.Now()
	}
	at = at.UTC().Truncate(time.Second)
	if a != nil && f.Channel == "sms" {
		row := map[string]string{"subscriberkey": "sms-" + f.Address, "mobilenumber": strings.TrimPrefix(f.Address, "+"), "optoutdate": "", "optindate": ""}
		if f.List != "" {
			row["subscriptiondefinitionid"] = f.List
		}
		stamp := at.Add(-6 * time.Hour).Format("1/2/2006 3:04:05 PM") // Central, without a mark
		switch f.What {
		case simulator.Known, simulator.Resubscribed:
			row["optindate"] = stamp
		case simulator.Unsubscribed:
			row["optoutdate"], row["optoutstatusid"] = stamp, "1"
		default:
			return fmt.Errorf("%w: %q on sms", simulator.ErrFact, f.What)
		}
		for _, before := range slices.Backward(a.texts) {
			if before["mobilenumber"] == row["mobilenumber"] && before["subscriptiondefinitionid"] == f.List {
				if (before["optoutdate"] == "") == (row["optoutdate"] == "") {
					return nil // of those who opt out twice, only the first time is logged
				}
				break
			}
		}
		a.texts = append(a.texts, row)
		return nil
	}
	if a == nil || f.Channel != "email" {
		return fmt.Errorf("%w: account %q, channel %q", simulator.ErrFact, f.Account, f.Channel)
	}
	person := a.people.Make("email", f.Address, at)
	if person.Mail.Word == "" {
		person.Mail = simulator.Status{Word: "Active", At: at}
	}
	switch f.What {
	case simulator.Known, simulator.NeverAsked, simulator.Resubscribed:
		a.set(person, "Active", "", at)
	case simulator.Unsubscribed:
		if f.List != "" {
			a.events = append(a.events, event{object: "UnsubEvent", key: person.Key, list: f.List, at: at})
			break
		}
		a.set(person, "Unsubscribed", "", at)
	case simulator.Complained:
		_, host, _ := strings.Cut(f.Address, "@")
		a.set(person, "Unsubscribed", "Spam complaint from "+host, at)
	case simulator.HardBounced:
		a.people.Set(person, "email", "Held", at)
		a.events = append(a.events, event{object: "BounceEvent", key: person.Key, kind: "HardBounce", at: at})
	case simulator.SoftBounced:
		a.events = append(a.events, event{object: "BounceEvent", key: person.Key, kind: "SoftBounce", at: at})
	default:
		return fmt.Errorf("%w: %q", simulator.ErrFact, f.What)
	}
	return nil
}

// Suppressed implements [simulator.Keeper].
func (s *Simulator) Suppressed(account, channel string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Flush()
	list := map[string]string{}
	a := s.accounts[account]
	if a == nil {
		return list
	}
	if channel == "sms" {
		for _, row := range a.texts {
			if row["optoutdate"] != "" {
				list["+"+row["mobilenumber"]] = "opted out"
			} else {
				delete(list, "+"+row["mobilenumber"])
			}
		}
		return list
	}
	for _, p := range a.people.All {
		if p.Email != "" && p.Mail.Word != "" && p.Mail.Word != "Active" {
			list[p.Email] = p.Mail.Word
		}
	}
	return list
}

// State implements [simulator.Keeper].
func (s *Simulator) State() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := map[string]any{}
	for name, a := range s.accounts {
		people := []simulator.Person{}
		for _, p := range a.people.All {
			people = append(people, *p)
		}
		state[name] = map[string]any{"sent": slices.Clone(a.sent), "subscribers": people}
	}
	return state
}
