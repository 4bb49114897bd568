// Package model checks the cache's consistency protocol by trying everything.
package model
