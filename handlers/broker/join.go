package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// ErrNotJoined says that the ledger does not take a dispatcher into its fleet, and why. Waiting does not help.
var ErrNotJoined = errors.New("not admitted to the fleet")

// joinPrefix lets people and secret scanners recognise what a dispatcher joins with.
const joinPrefix = "dlj_"

// Credential is what a dispatcher joins with: its token, and the ledger's public key, so that it tells the token to nobody
// but the ledger, over whatever network, and takes jobs from nobody else.
type Credential struct {
	Token  string `json:"t"`
	Public string `json:"k"`
}

// String is the credential as one word. It is a secret.
func (c Credential) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		return "" // two strings always marshal
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseCredential reads what String wrote.
func ParseCredential(text string) (Credential, error) {
	var c Credential
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil || json.Unmarshal(raw, &c) != nil || c.Token == "" || c.Public == "" {
		return c, fmt.Errorf("%w: the credential is not one that 'dispatch-ledger token create --role dispatcher' printed (it begins with %s)", ErrConfig, joinPrefix)
	}
	return c, nil
}

// joinRequest is sealed for the ledger.
type joinRequest struct {
	Token  string `json:"token"`
	Public string `json:"public"` // of a key pair made for this one request
	Nonce  []byte `json:"nonce"`  // only the ledger can read it, so who answers with it is the ledger
}

// joinReply is sealed for the dispatcher.
type joinReply struct {
	Nonce  []byte           `json:"nonce"`
	Error  string           `json:"error,omitempty"`
	Name   string           `json:"name,omitempty"` // of the token
	Newest int64            `json:"newest,omitempty"`
	Keys   map[int64][]byte `json:"keys,omitempty"` // by epoch
}

var joinContext = []byte("dispatch-ledger/fleet/join")

// porter answers those who want to join, on the writers' side.
type porter struct {
	broker *Broker
	tokens *schema.Tokens
	vault  *schema.Vault
}

// open answers until the subscription is ended, which closing the connection does. One of the writers answers each request.
func (p *porter) open(ctx context.Context) error {
	_, err := p.broker.nc.QueueSubscribe(p.broker.join(), "writers", func(m *nats.Msg) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		reply, err := p.answer(ctx, m.Data)
		if err != nil {
			p.broker.Log.WarnContext(ctx, "a request to join the fleet was not answered", slog.Any("error", err))
			return
		}
		if err := m.Respond(reply); err != nil {
			p.broker.Log.DebugContext(ctx, "answer to a request to join", slog.Any("error", err))
		}
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

// answer admits whoever has a live token with the dispatcher's role. What cannot be read is from nobody who knows this
// ledger, and gets no answer.
func (p *porter) answer(ctx context.Context, sealed []byte) ([]byte, error) {
	fleet, err := p.vault.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := fleet.Identity.Decrypt(sealed, joinContext)
	if err != nil {
		return nil, errSealed
	}
	var req joinRequest
	if err := json.Unmarshal(plain, &req); err != nil {
		return nil, fmt.Errorf("request to join: %w", err)
	}
	theirs, err := schema.HybridEncrypter(req.Public)
	if err != nil {
		return nil, fmt.Errorf("request to join: %w", err)
	}
	reply := joinReply{Nonce: req.Nonce}
	switch token, err := p.tokens.AuthenticateAfresh(ctx, req.Token); {
	case errors.Is(err, schema.ErrUnauthenticated):
		reply.Error = "its token is unknown, expired or revoked; make another with: dispatch-ledger token create --role dispatcher --name NAME"
		p.broker.Log.WarnContext(ctx, "a dispatcher was refused", slog.Any("error", err))
	case err != nil:
		return nil, err
	case token.Role != schema.RoleDispatcher:
		reply.Error = fmt.Sprintf("its token's role is %s; it takes one of role %s", token.Role, schema.RoleDispatcher)
	default:
		reply.Name, reply.Newest, reply.Keys = token.Name, fleet.Newest.Epoch, map[int64][]byte{}
		for epoch, key := range fleet.Keys {
			if reply.Keys[epoch], err = key.Export(); err != nil {
				return nil, err
			}
		}
	}
	plain, err = json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("answer to a request to join: %w", err)
	}
	return theirs.Encrypt(plain, joinContext)
}

// join asks for the fleet's keys and takes them. ErrNotJoined is the ledger's refusal; any other error is of the moment.
func (b *Broker) joinWith(ctx context.Context, c Credential, k *keys) (name string, changed bool, err error) {
	ledger, err := schema.HybridEncrypter(c.Public)
	if err != nil {
		return "", false, fmt.Errorf("%w: the credential: %w", ErrConfig, err)
	}
	mine, err := keyset.NewHandle(hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	if err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	public, err := schema.PublicKeyset(mine)
	if err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	req := joinRequest{Token: c.Token, Public: public, Nonce: make([]byte, 16)}
	if _, err := rand.Read(req.Nonce); err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	plain, err := json.Marshal(req)
	if err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	sealed, err := ledger.Encrypt(plain, joinContext)
	if err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	answer, err := b.nc.RequestWithContext(ctx, b.join(), sealed)
	if err != nil {
		return "", false, fmt.Errorf("join: %w: no writer answers: %w", ErrUnreachable, err)
	}
	open, err := hybrid.NewHybridDecrypt(mine)
	if err != nil {
		return "", false, fmt.Errorf("join: %w", err)
	}
	var reply joinReply
	if plain, err = open.Decrypt(answer.Data, joinContext); err == nil {
		err = json.Unmarshal(plain, &reply)
	}
	if err != nil || !bytes.Equal(reply.Nonce, req.Nonce) {
		return "", false, fmt.Errorf("join: the answer is not the ledger's: %w", errSealed)
	}
	if reply.Error != "" {
		return "", false, fmt.Errorf("%w: %s", ErrNotJoined, reply.Error)
	}
	all := make(map[int64]schema.FleetKey, len(reply.Keys))
	for epoch, exported := range reply.Keys {
		if all[epoch], err = schema.ImportFleetKey(epoch, exported); err != nil {
			return "", false, fmt.Errorf("join: %w", err)
		}
	}
	return reply.Name, k.set(all[reply.Newest], all), nil
}
