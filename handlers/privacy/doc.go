// Package privacy acts for the person whom data is about: it erases them, hands them everything that is held on them,
// shows sealed data to whoever says why, and forgets what has been kept for long enough.
//
//	Erase ──▶ profile.erased       the person's key is destroyed in the same transaction
//	Access, Reveal ──▶ sealed.revealed, before anything is shown
//	Keeper ──▶ retention.ended     the keys of a type's old days are destroyed in the same transaction
package privacy
