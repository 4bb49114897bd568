// Package httpapi serves the platform over HTTP: version 1 of its API on the public listener,
// metrics and profiles on the private one.
//
// It stands on net/http alone. A handler reads its request, asks the platform and returns a
// reply or an error; everything that all of them share (tokens, limits, entity tags, the
// shape of answers and of errors, logs) is done once around them. Frameworks that
// derive validation from types report what is wrong in their own shape, stop at the
// first place that is wrong, and validate before they authenticate; the contract wants
// none of the three.
package httpapi
