#pragma once
#include "model/qwen2.h"

namespace lab {

/// Gives every matrix that is multiplied with its repacked form too, where it has one
/// (kernels/rows8.h): `threads` threads read the weights once, and the mapped pages they came from
/// are let go of piece by piece, so that memory holds each weight once (a table that is also the
/// embedding twice). Who reads them there again
/// gets them from the page cache.
void Repack(Qwen2& model, int threads);

}  // namespace lab
