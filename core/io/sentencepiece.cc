/* sentencepiece.cc - the border to libsentencepiece; the only C++ of the core. Everything is caught here. */
#include "sentencepiece.h"

#include <exception>
#include <new>
#include <sentencepiece_processor.h>
#include <string_view>
#include <vector>

struct pv_sp {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" pv_status pv_sp_create(const void *model, size_t n, const char *where, pv_sp **out)
{
    *out = nullptr;
    pv_sp *sp = nullptr;
    pv_status st = PV_OK;
    try {
        sp = new pv_sp;
        auto status =
            sp->processor.LoadFromSerializedProto(std::string_view(static_cast<const char *>(model), n));
        if (!status.ok())
            st = pv_fail(PV_E_FILE, "%s: not a SentencePiece model: %s", where, status.error_message());
    } catch (const std::bad_alloc &) {
        st = pv_fail(PV_E_MEMORY, "%s: out of memory for the SentencePiece model", where);
    } catch (const std::exception &e) {
        st = pv_fail(PV_E_FILE, "%s: not a SentencePiece model: %s", where, e.what());
    } catch (...) {
        st = pv_fail(PV_E_FILE, "%s: not a SentencePiece model", where);
    }
    if (st)
        delete sp;
    else
        *out = sp;
    return st;
}

extern "C" void pv_sp_destroy(pv_sp *sp)
{
    delete sp;
}

extern "C" int pv_sp_vocab(const pv_sp *sp)
{
    return sp->processor.GetPieceSize();
}

extern "C" int pv_sp_bos(const pv_sp *sp)
{
    return sp->processor.bos_id();
}

extern "C" pv_status pv_sp_encode(const pv_sp *sp, const char *text, size_t n, int32_t *ids, int capacity,
                                  int *n_ids)
{
    try {
        std::vector<int> pieces;
        auto status = sp->processor.Encode(std::string_view(text, n), &pieces);
        if (!status.ok())
            return pv_fail(PV_E_ARG, "tokenizer: %s", status.error_message());
        for (int id : pieces)
            if (id < 0 || id >= sp->processor.GetPieceSize())
                return pv_fail(PV_E_FILE, "tokenizer: the model gave id %d, its vocabulary ends before %d",
                               id, sp->processor.GetPieceSize());
        for (int id : pieces) {
            if (*n_ids < capacity)
                ids[*n_ids] = id;
            ++*n_ids;
        }
        return PV_OK;
    } catch (const std::bad_alloc &) {
        return pv_fail(PV_E_MEMORY, "tokenizer: out of memory for %zu bytes of text", n);
    } catch (const std::exception &e) {
        return pv_fail(PV_E_ARG, "tokenizer: %s", e.what());
    } catch (...) {
        return pv_fail(PV_E_ARG, "tokenizer: the text could not be encoded");
    }
}
