package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// Size is in the budget of a store call. What takes long because it is large must not look as if
// the store had failed, nor make small calls behind it look so.
//
// No call is large. Tags, keys, claims and fills go to the store at most mostItems at a time, and
// not more than about mostBytes of entries. Each such call has a deadline of its own, which grows
// with what it carries. Versions and entries that belong to one answer may come from several
// calls: each is from a moment between the beginning and the end of the reading, and that is all
// that a Store promises for one call, too.
//
// An entry that is larger than a part is stored in parts, under keys of their own. Its head is
// read like any entry, with the versions of its tags. Only if it is valid are the parts read, one
// after the other, so an invalid one is not transferred, and the calls of others fit in between:
//
//	settle: part 0 … part 15 of fill f, then the head: guard, times, f, size
//	read:   versions, head -> valid -> part 0 … part 15, all of fill f, else a miss
//
// Parts are replaced by the next fill: their keys do not change. A reader in the middle meets a
// part of another fill, and loads, or waits for who does.
//
// The other way was a connection of its own for what is large. But a reader does not know
// beforehand what is, a network link is shared all the same, and each store would have to do it.
//
// What is larger still (Config.MaxEntryBytes), and what has more than mostTags tags, is given to
// its callers and not stored.
// Decision 43.
const (
	mostItems = driver.MaxItems
	mostBytes = 2 << 20 // of entries in one call, as far as that is known beforehand
	partBytes = 512 << 10
	mostParts = 2 // calls with parts at the same time: what a small call may have to wait for

	mostTags = 1000 // that an answer names
	mostKey  = 1024 // bytes

	// What a call may take beyond StoreTimeout. Both are generous: a slow network, a busy server.
	perItem    = 100 * time.Microsecond
	perSecond  = 8 << 20 // bytes
	freeItems  = 64
	freeBytes  = 64 << 10
	partHeader = 16 + 4 // fill, checksum

	// What parts are stored under; no query has a name like it.
	partNamespace = "part"
)

// allowance is what a call with so many tags and keys, and so many bytes of entries, may take
// beyond StoreTimeout. Most calls are small and share the deadline of others.
func allowance(items, bytes int) (extra time.Duration) {
	if items > freeItems {
		extra += time.Duration(items) * perItem
	}
	if bytes > freeBytes {
		extra += time.Duration(bytes) * time.Second / perSecond
	}
	return extra
}

// itemsOf is how many entries one call may carry, if each has so many bytes.
func itemsOf(bytes int) int { return min(max(mostBytes/max(bytes, 1), 1), mostItems) }

// read asks the store for the versions of tags and for entries of about size bytes each, unless
// the store is not validated.
func (c *Cache) read(ctx context.Context, tags []Tag, keys []string, size int) (driver.Snapshot, error) {
	if len(tags)+len(keys) <= mostItems && len(keys) <= itemsOf(size) {
		return c.readSome(ctx, tags, keys, size)
	}
	var all driver.Snapshot
	for some := range slices.Chunk(tags, mostItems) {
		s, err := c.readSome(ctx, some, nil, 0)
		if err != nil {
			return driver.Snapshot{}, err
		}
		all.States = append(all.States, s.States...)
	}
	for some := range slices.Chunk(keys, itemsOf(size)) {
		s, err := c.readSome(ctx, nil, some, size)
		if err != nil {
			return driver.Snapshot{}, err
		}
		all.Entries = append(all.Entries, s.Entries...)
	}
	return all, nil
}

func (c *Cache) readSome(ctx context.Context, tags []Tag, keys []string, size int) (driver.Snapshot, error) {
	if !c.health.isValidated() {
		return driver.Snapshot{}, ErrUnavailable
	}
	var s driver.Snapshot
	err := c.health.callFor(ctx, "read", allowance(len(tags)+len(keys), len(keys)*size), func(ctx context.Context) (err error) {
		s, err = c.cfg.Store.Read(ctx, tags, keys)
		return err
	})
	if err == nil && (len(s.States) != len(tags) || len(s.Entries) != len(keys)) {
		err = fmt.Errorf("the store read %d tags of %d and %d entries of %d", len(s.States), len(tags), len(s.Entries), len(keys))
	}
	if err != nil {
		return driver.Snapshot{}, err // the call may still write s
	}
	return s, nil
}

// claim asks for leases. After an error it returns the answers to the first of the claims.
func (c *Cache) claim(ctx context.Context, claims []driver.Claim, size int) (claimed []driver.Claimed, err error) {
	for some := range slices.Chunk(claims, itemsOf(size)) {
		var answers []driver.Claimed
		err = c.health.callFor(ctx, "claim", allowance(2*len(some), len(some)*size), func(ctx context.Context) (err error) {
			answers, err = c.cfg.Store.Claim(ctx, some)
			if err == nil && len(answers) != len(some) {
				err = fmt.Errorf("the store answered %d claims of %d", len(answers), len(some))
			}
			return err
		})
		if err != nil {
			return claimed, err
		}
		claimed = append(claimed, answers...)
	}
	return claimed, nil
}

// settle ends loads. After an error it returns how many are not known to be settled.
func (c *Cache) settle(ctx context.Context, fills []driver.Fill) (left int, err error) {
	// Also when the cache is closing: another process should not have to wait for the lease.
	ctx = context.WithoutCancel(ctx)
	for len(fills) > 0 {
		if parts := c.partsOf(&fills[0]); parts != nil {
			if err := c.settleParts(ctx, parts); err != nil {
				return len(fills), err
			}
		}
		n, items, bytes := 0, 0, 0
		for n < len(fills) && (n == 0 || items < mostItems && bytes < mostBytes && len(fills[n].Entry) <= partBytes) {
			items += 2 + len(fills[n].Tags)
			bytes += len(fills[n].Entry)
			n++
		}
		err := c.health.callFor(ctx, "settle", allowance(items, bytes), func(ctx context.Context) error {
			return c.cfg.Store.Settle(ctx, fills[:n])
		})
		if err != nil {
			return len(fills), err
		}
		fills = fills[n:]
	}
	return 0, nil
}

// bumpSome gives tags new versions, and fenceSome announces that they will have.
func (c *Cache) bumpSome(ctx context.Context, tags []Tag, mark driver.Mark) error {
	return c.eachChunk(ctx, "bump", tags, func(ctx context.Context, some []Tag) error {
		return c.cfg.Store.Bump(ctx, some, mark)
	})
}

func (c *Cache) fenceSome(ctx context.Context, tags []Tag, mark driver.Mark) error {
	return c.eachChunk(ctx, "fence", tags, func(ctx context.Context, some []Tag) error {
		return c.cfg.Store.Fence(ctx, some, mark, c.cfg.FenceLease)
	})
}

func (c *Cache) eachChunk(ctx context.Context, op string, tags []Tag, do func(context.Context, []Tag) error) error {
	for some := range slices.Chunk(tags, mostItems) {
		err := c.health.callFor(ctx, op, allowance(len(some), 0), func(ctx context.Context) error { return do(ctx, some) })
		if err != nil {
			return err
		}
	}
	return nil
}

// partKey is where a part of the entry under key is stored.
func partKey(key string, i int) string { return partNamespace + ":" + strconv.Itoa(i) + ":" + key }

// partsOf returns the parts of a fill whose entry is too large for one, and leaves the head in
// it; nil if the entry needs no parts.
func (c *Cache) partsOf(fill *driver.Fill) []driver.Fill {
	if len(fill.Entry) <= partBytes {
		return nil
	}
	var e envelope
	if !e.decode(fill.Entry) {
		return nil // it is what encode made
	}
	id := driver.NewVersion()
	var parts []driver.Fill
	for some := range slices.Chunk(e.payload, partBytes) {
		part := make([]byte, partHeader, partHeader+len(some))
		copy(part, id[:])
		part = append(part, some...)
		binary.BigEndian.PutUint32(part[16:], crc32.Checksum(some, castagnoli))
		parts = append(parts, driver.Fill{Key: partKey(fill.Key, len(parts)), Token: driver.Token(driver.NewVersion()), Entry: part, Life: fill.Life})
	}
	e.parted = true
	e.payload = binary.BigEndian.AppendUint64(id[:], uint64(len(e.payload)))
	fill.Entry = e.encode()
	return parts
}

// enterParts waits for one of mostParts slots. It gives up where one part alone would have.
func (c *Cache) enterParts(ctx context.Context) (leave func(), err error) {
	t := time.NewTimer(c.cfg.LoadTimeout)
	defer t.Stop()
	select {
	case c.parts <- struct{}{}:
		return func() { <-c.parts }, nil
	case <-t.C:
		return nil, ErrUnavailable
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Cache) settleParts(ctx context.Context, parts []driver.Fill) error {
	for i := range parts {
		leave, err := c.enterParts(ctx)
		if err != nil {
			return err
		}
		err = c.health.callFor(ctx, "settle", allowance(1, partBytes), func(ctx context.Context) error {
			return c.cfg.Store.Settle(ctx, parts[i:i+1])
		})
		leave()
		if err != nil {
			return err
		}
	}
	return nil
}

var errTorn = errors.New("parts of an entry are missing, damaged, or of another fill")

// readParts returns the payload of an entry that was stored in parts. It fails with errTorn if
// they are not whole.
func (c *Cache) readParts(ctx context.Context, key string, head []byte) ([]byte, error) {
	size := partedSize(head)
	if size <= 0 || size > c.cfg.MaxEntryBytes { // a stored value must not make readers allocate at will
		return nil, errTorn
	}
	payload := make([]byte, 0, size)
	for i := 0; len(payload) < size; i++ {
		leave, err := c.enterParts(ctx)
		if err != nil {
			return nil, err
		}
		snapshot, err := c.readSome(ctx, nil, []string{partKey(key, i)}, partBytes)
		leave()
		if err != nil {
			return nil, err
		}
		part := snapshot.Entries[0]
		if len(part) != partHeader+min(partBytes, size-len(payload)) || [16]byte(part) != [16]byte(head) ||
			binary.BigEndian.Uint32(part[16:]) != crc32.Checksum(part[partHeader:], castagnoli) {
			return nil, errTorn
		}
		payload = append(payload, part[partHeader:]...)
	}
	return payload, nil
}

// partedSize returns how many bytes an entry in parts has, by its head.
func partedSize(head []byte) int {
	if len(head) != 16+8 {
		return 0
	}
	return int(min(binary.BigEndian.Uint64(head[16:]), 1<<40))
}

// boundedKey keeps keys of a length that any store takes. A hash stands for what is longer, under
// the prefix of the query.
func (d *Cached[P, V]) boundedKey(key string) string {
	if len(key) <= mostKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return d.prefix + "#" + hex.EncodeToString(sum[:])
}

// noteSize keeps the average size of what was loaded of late, by which batches are cut. Two that
// note at once may lose one: no harm.
func (d *Cached[P, V]) noteSize(bytes int) {
	size := d.size.Load()
	if size == 0 {
		size = int64(bytes)
	}
	d.size.Store(size + (int64(bytes)-size)/8)
}

// entrySize is about what an entry of the query has in one key of the store.
func (d *Cached[P, V]) entrySize() int { return int(min(d.size.Load(), partBytes)) }

// refuseSize tells of an answer that is too large to be stored, or has too many tags.
func (d *Cached[P, V]) refuseSize(ctx context.Context, e event.TooLarge) {
	d.observe(ctx, e)
	said, limit, remedy := &d.saidBytes, d.c.cfg.MaxEntryBytes, "make the answer smaller, in pages, or raise Config.MaxEntryBytes"
	if e.Tags > 0 {
		said, limit, remedy = &d.saidTags, mostTags, "let the answer depend on a collection, by one tag that each write to it touches"
	}
	said.Do(func() {
		d.c.cfg.Logger.WarnContext(ctx, "an answer is too large to be stored: it is loaded each time that it is asked for",
			"query", d.q.Name, "key", e.Key, "bytes", e.Bytes, "tags", e.Tags, "most", limit, "remedy", remedy)
	})
}
