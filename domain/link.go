package domain

import (
	"time"

	"github.com/google/uuid"
)

// LinkKind says what a link in a message leads to.
type LinkKind byte

// The links that messages carry.
const (
	LinkPreferences LinkKind = 1 // the person's preference centre
	LinkUnsubscribe LinkKind = 2 // the one-click way out of what the message is
)

// Link is what the token of a link stands for: whose page it opens and until when, and the message that carried it.
type Link struct {
	Kind       LinkKind
	ProfileID  uuid.UUID
	DeliveryID uuid.UUID // zero when no delivery carried it
	Channel    Channel   // what an unsubscribe link is about: the target's consent rule
	Purpose    Purpose
	ExpiresAt  time.Time // whole hours
}
