package cache

// JSONLosses is what Define has against a type without a Codec.
var JSONLosses = jsonLosses
