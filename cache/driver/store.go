package driver

import (
	"context"
	"errors"
	"time"
)

// Store is the tier that processes share: entries, the versions of tags, and the leases
// of loads. Package memstore keeps it in process, package redisstore in Redis; package
// storetest holds the rules below as a suite that every Store must pass.
//
// A Store is safe for concurrent use. Each method returns soon after its context ends,
// with an error, whatever became of the operation; all of them may be repeated without
// harm. Keys and tags are free of control characters; a store adds a prefix of its own
// and keeps entries, tags and leases apart, so that no key can name a tag.
//
// A call carries no more than MaxItems, and its context has the time for what it carries. So a
// store need not split it, and what one call of a caller holds up for others is bounded.
//
// All durations are judged by the store's own clock, never by the clock of a caller.
type Store interface {
	// Read returns the state of every tag and the entry of every key, in order, in one
	// round trip. A tag that has no version gets a fresh random one first. An entry that
	// is absent or has outlived its Life is nil. Callers must not modify entries.
	//
	// The results need not belong to one moment; each belongs to some moment between
	// the call and the return.
	//
	// It fails with ErrUnproven when the store cannot yet tell whether it lost
	// state; call Identity, then read again.
	Read(ctx context.Context, tags []Tag, keys []string) (Snapshot, error)

	// Fence gives each tag a new version and the writer's mark, which expires when lease
	// has passed. A tag bears any number of marks. Fencing again under the same mark
	// renews its lease. It costs the same however many entries depend on the tags.
	// After an error each tag may be fenced or not.
	Fence(ctx context.Context, tags []Tag, mark Mark, lease time.Duration) error

	// Bump gives each tag a new version and removes mark from it, leaving other marks
	// in place. mark may be NoMark. It costs the same however many entries depend on
	// the tags. After an error each tag may be bumped or not.
	Bump(ctx context.Context, tags []Tag, mark Mark) error

	// Claim asks for the right to load keys, one result for each claim, in one round trip.
	// A claim that is repeated under the token that holds the lease is granted again.
	Claim(ctx context.Context, claims []Claim) ([]Claimed, error)

	// Renew extends the lease that token holds on key to ttl from now. It fails with
	// ErrLeaseLost when token holds it no longer.
	Renew(ctx context.Context, key string, token Token, ttl time.Duration) error

	// Settle ends loads, in one round trip: each stores an entry, remembers a failure,
	// or merely gives the lease back, and then announces it to the processes that were refused the
	// lease. The entry is stored whether or not the token still holds the lease (its
	// guard protects readers); lease and failure change only while it does. A lease that
	// is merely given back leaves a remembered failure as it is.
	Settle(ctx context.Context, fills []Fill) error

	// Announced returns a channel that receives (at least) one value after key is settled
	// by anyone, and a function that ends the subscription and must be called. An
	// announcement may be lost: wait with a bound. Subscribe before claiming.
	Announced(key string) (<-chan struct{}, func())

	// Identity proves that the store answers, and names the incarnation of its data. A
	// changed identity means that versions and marks may have been lost or rolled back:
	// a restart, a failover. What the versions returned by Read guard is never valid
	// across two identities.
	Identity(ctx context.Context) (string, error)

	// CheckWrites proves that the store takes writes, and shows them: in one round trip it
	// changes something, however small, in every part of the data that answers, by the means
	// of Bump, and reads it by the means of Read. The cache calls it several times a second:
	// a store that answers reads and refuses bumps would serve what was invalidated.
	CheckWrites(ctx context.Context) error

	// Name tells the data that processes share from any other: it is the same for every
	// process that shares it, for as long as it is kept, and the same for no other. Losing
	// it with the data is safe.
	Name(ctx context.Context) (string, error)

	// Purge removes the entries (never the tags) whose key matches pattern, in which
	// * stands for any bytes and ? for one, and nothing else is special. It returns how
	// many. It walks the whole store in bounded steps: an operator's tool.
	Purge(ctx context.Context, pattern string) (int, error)

	// Close releases what the store holds, and waits for its goroutines. The client
	// that a store was given stays open.
	Close() error
}

// What a cache asks of a store in one call is bounded. Batches and long lists of tags come in
// several calls, and large answers in several entries.
const (
	// MaxItems is how many tags and keys a call of Read names, and how many tags, claims or fills
	// any other. A fill may have more tags than that.
	MaxItems = 500
	// MaxEntry is how many bytes an entry has.
	MaxEntry = 513 << 10
)

// ErrUnproven is returned by Store.Read when the store cannot tell whether its
// data is the data it had before, as after a new connection.
var ErrUnproven = errors.New("cache: store has not proven its identity")

// ErrLeaseLost is returned by Store.Renew when the lease ran out or was taken over.
var ErrLeaseLost = errors.New("cache: fill lease lost")

// Snapshot is the result of Store.Read.
type Snapshot struct {
	States  []TagState // one for each tag asked for, in order
	Entries [][]byte   // one for each key asked for, in order; nil where there is none
}

// Claim asks for the fill lease of one key.
type Claim struct {
	Key   string
	Token Token // of this load, random
	// Guard is what the load will store under. A lease held under another guard does
	// not stand in the way: its load began under other versions and is of no use now. Nor
	// does a failure of such a load, whose cause may have been ended by a write.
	Guard Guard
	TTL   time.Duration // of the lease; renew it before
}

// ClaimState says what became of a Claim.
type ClaimState uint8

const (
	Granted ClaimState = iota + 1 // the caller holds the lease and is to load
	Held                          // another load under the same guard is running
	Failed                        // the last load, under the same guard, failed and is not to be repeated yet
)

// Claimed is the answer to a Claim.
type Claimed struct {
	State ClaimState
	// Entry is the entry of the key, read after the decision; nil if absent. It may
	// have been stored since the caller looked.
	Entry []byte
	// Wait is, when Held, the time after which the lease runs out unless it is renewed;
	// when Failed, the time until a claim may be granted.
	Wait time.Duration
	// Failure is what the last Fill remembered about the failure, when Failed, and also
	// when Granted if it is still remembered.
	Failure []byte
}

// Fill is the end of a load: exactly one of Entry and Failure, or neither. Nil is none; an
// empty slice is an entry or a failure without bytes. A store may keep the slices, so they
// must not be modified afterwards.
type Fill struct {
	Key   string
	Token Token
	// Entry is stored for Life. The tags' versions are kept for at least as long.
	Entry []byte
	Life  time.Duration
	Tags  []Tag
	// Failure makes claims of the key under the load's guard answer Failed for Hold, unless a
	// claim under another guard is granted first. It is remembered for twice as long, so that
	// the next failure can know of this one.
	Failure []byte
	Hold    time.Duration
}
