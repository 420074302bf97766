package sfmc

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// envelope is a SOAP 1.1 request, with the token in its header.
type envelope struct {
	XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
	Header  struct {
		Token struct {
			XMLName xml.Name `xml:"http://exacttarget.com fueloauth"`
			Value   string   `xml:",chardata"`
		}
	} `xml:"Header"`
	Body struct{ Content any } `xml:"Body"` // the content brings its own name
}

// retrieveRequest asks for objects, or for the rest of what an earlier request began.
type retrieveRequest struct {
	XMLName xml.Name `xml:"http://exacttarget.com/wsdl/partnerAPI RetrieveRequestMsg"`
	Request struct {
		ObjectType string   `xml:"ObjectType"`
		Properties []string `xml:"Properties"`
		Filter     *filter  `xml:"Filter,omitempty"`
		Continue   string   `xml:"ContinueRequest,omitempty"`
	} `xml:"RetrieveRequest"`
}

// filter is a SimpleFilterPart.
type filter struct {
	Type     string   `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	Property string   `xml:"Property"`
	Operator string   `xml:"SimpleOperator"`
	Values   []string `xml:"Value,omitempty"`
	Date     string   `xml:"DateValue,omitempty"`
}

// updateRequest updates subscribers, and adds those that are not there.
type updateRequest struct {
	XMLName xml.Name `xml:"http://exacttarget.com/wsdl/partnerAPI UpdateRequest"`
	Options struct {
		Property string `xml:"SaveOptions>SaveOption>PropertyName"`
		Action   string `xml:"SaveOptions>SaveOption>SaveAction"`
	} `xml:"Options"`
	Objects []subscriberObject `xml:"Objects"`
}

type subscriberObject struct {
	Type   string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	Email  string `xml:"EmailAddress"`
	Key    string `xml:"SubscriberKey"`
	Status string `xml:"Status"`
}

// result is one object of an answer: the union of the fields that we ask for.
type result struct {
	Email        string `xml:"EmailAddress"`
	Key          string `xml:"SubscriberKey"`
	Status       string `xml:"Status"`
	Unsubscribed string `xml:"UnsubscribedDate"`
	EventDate    string `xml:"EventDate"`
	EventType    string `xml:"EventType"`
	Master       string `xml:"IsMasterUnsubscribed"`
	List         string `xml:"List>ID"`
	Category     string `xml:"BounceCategory"`
	Current      string `xml:"CurrentStatus"`
	Previous     string `xml:"PreviousStatus"`
	Reason       string `xml:"ReasonUnsub"`
	Created      string `xml:"CreatedDate"`

	StatusCode    string `xml:"StatusCode"`
	StatusMessage string `xml:"StatusMessage"`
	Ordinal       int    `xml:"OrdinalID"`
}

// reply is any answer: of Retrieve, of Update, or a fault.
type reply struct {
	Retrieve struct {
		Status  string   `xml:"OverallStatus"`
		ID      string   `xml:"RequestID"`
		Results []result `xml:"Results"`
	} `xml:"Body>RetrieveResponseMsg"`
	Update struct {
		Status  string   `xml:"OverallStatus"`
		Results []result `xml:"Results"`
	} `xml:"Body>UpdateResponse"`
	Fault string `xml:"Body>Fault>faultstring"`
}

// classifySOAP reads an answer of the SOAP API, where throttling and an expired token are both a 500 with a fault.
func classifySOAP(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	var said reply
	if err := xml.Unmarshal(body, &said); err != nil && v.Kind == domain.Accepted {
		v.Kind, v.Reason, v.Native = domain.Permanent, "the answer is no SOAP", platforms.Clip(err.Error(), 200)
		return v
	}
	fault := strings.ToLower(said.Fault)
	switch {
	case fault == "":
	case strings.Contains(fault, "token expired"), strings.Contains(fault, "login failed"), strings.Contains(fault, "invalid token"):
		v.Kind, v.RetryAt, v.Reason = domain.AuthExpired, time.Time{}, "Marketing Cloud refused the access token"
	case strings.Contains(fault, "rate"), strings.Contains(fault, "throttl"), strings.Contains(fault, "too many"):
		v.Kind, v.Reason = domain.RetryLater, "Marketing Cloud is rate limiting the account"
		if v.RetryAt.IsZero() {
			v.RetryAt = now.Add(30 * time.Second) // a fault names no time
		}
	}
	if said.Fault != "" {
		v.Native = platforms.Clip(said.Fault, 300)
	}
	return v
}

// encode writes a request.
func encode(token platforms.Secret, content any) ([]byte, error) {
	var e envelope
	e.Header.Token.Value, e.Body.Content = string(token), content
	body, err := xml.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("sfmc: soap: %w", err)
	}
	return append([]byte(xml.Header), body...), nil
}
