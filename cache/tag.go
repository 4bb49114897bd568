package cache

import "github.com/chainlearn/chainlearn/cache/driver"

// Tag names something answers depend on, such as "course:7f…". A write bumps the
// tags of what it changed; every answer that carries one of them is invalid from then on.
//
// Make each tag by one function, next to the type that it names, so that the read
// and the write cannot spell it differently.
type Tag = driver.Tag
